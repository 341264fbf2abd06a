import json
import re
import shutil
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

import hfprobe
from helpers.exported import push
from helpers.images import draw_images
from helpers.with_onnx import onnx  # noqa: F401  skips without the extra
from hfprobe.models import runtimes
from hfprobe.models.onnx_files import open_session
from hfprobe.system.errors import InputError
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.tasks.compare.comparable import load_comparable, make_comparable, name_results
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.export import quantization, result
from hfprobe.tasks.export.result import CLASSIFIER, INT8_CLASSIFIER, INT8_NETWORK, find_network

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("narrow_network")]
PROBE = {"name": "probe", "backbone": "test_byobnet", "backbone_weights": "random"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory, dataset_folder, narrow_network):
    """A hub folder with a CNN that is exported in int8 too, and a probe that is exported in float32."""
    hub = tmp_path_factory.mktemp("runtimes") / "hub"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, "ROUNDS", 1)
        hfprobe.load(push(hub, dataset_folder)).export(quantize="int8", max_loss=100)
    hfprobe.load(push(hub, dataset_folder, **PROBE)).export()
    return hub


def load(name, runtime, hub):
    return hfprobe.load(name, runtime=runtime, hub_dir=hub)


@pytest.mark.parametrize("name", ["simple-cnn", "linear-probe"])
@pytest.mark.parametrize("how", [{}, {"tta": True, "temperature": True}, {"split": "validation"}])
def test_the_file_in_float32_gives_the_evaluation_of_torch(hub, name, how):
    own, exported = (load(name, runtime, hub).evaluate(**how) for runtime in ("torch", "onnx"))
    np.testing.assert_array_equal(own.predictions, exported.predictions)
    assert np.abs(own.probabilities - exported.probabilities).max() < 1e-5
    assert own.mistakes.keys() == exported.mistakes.keys()
    told = exported.provenance
    assert (own.provenance.runtime, told.runtime) == ("torch", "onnx")
    assert told.versions.keys() - own.provenance.versions.keys() == {"onnxruntime"}
    same = {"runtime": "torch", "versions": own.provenance.versions, "seconds": own.provenance.seconds}
    assert replace(told, **same) == own.provenance
    assert repr(exported).startswith(f"{name} (onnx) on ")


@pytest.mark.parametrize(
    ("name", "runtime", "file", "most"),
    [
        ("simple-cnn", "onnx", CLASSIFIER, 1e-5),
        ("linear-probe", "onnx", CLASSIFIER, 1e-5),
        ("simple-cnn", "int8", INT8_CLASSIFIER, 0.1),  # a value beside the edge of a step may fall to the other side
    ],
)
def test_predictions_are_those_of_the_file_with_its_preprocessing(hub, name, runtime, file, most):
    model = load(name, runtime, hub)
    images = draw_images(3, classes=5)[0]
    found = model.predict(list(images), temperature=True).probabilities
    session = open_session(model.folder / EXPORT_FOLDER / file)
    for image, probabilities in zip(images, found, strict=True):
        (wanted,) = session.run(["probabilities"], {"image": np.asarray(image)})
        assert np.abs(wanted[0] - probabilities).max() < most
    assert repr(model).startswith(f"{name} ({runtime}) (")


def test_int8_answers_by_its_own_file(hub):
    results = [load("simple-cnn", runtime, hub).evaluate() for runtime in runtimes.RUNTIMES]
    far = [np.abs(found.probabilities - results[0].probabilities).max() for found in results]
    assert far[1] < 1e-5 < 1e-4 < far[2]


def test_reports_of_each_runtime_stand_apart_and_are_compared(hub, succeeds, tmp_path):
    for runtime in runtimes.RUNTIMES:
        said = succeeds("eval.py", "--model", "simple-cnn", "--hub_dir", hub, "--runtime", runtime)
        assert (f"--runtime {runtime}" in said) == (runtime != "torch")
        assert (f"simple-cnn ({runtime}) answered, in onnxruntime on the CPU." in said) == (runtime != "torch")
    reports = {runtime: tmp_path / "reports" / f"simple-cnn-{runtime}" for runtime in ("onnx", "int8")}
    reports["torch"] = tmp_path / "reports" / "simple-cnn"
    for runtime, folder in reports.items():
        assert EvalResult.load(folder).provenance.runtime == runtime
        page = (folder / "report.html").read_text()
        named = "simple-cnn" if runtime == "torch" else f"simple-cnn ({runtime})"
        assert f"<h1>{named}: " in page
        assert f"<title>{named}: " in page
    assert list(load_comparable([reports["torch"], reports["int8"]])) == ["simple-cnn", "simple-cnn (int8)"]
    places = ["reports/simple-cnn", "reports/simple-cnn-onnx", "reports/simple-cnn-int8"]
    said = succeeds("compare.py", *places)
    assert "simple-cnn and simple-cnn (onnx) do not differ significantly" in said
    written = json.loads((tmp_path / "reports" / "comparison" / "comparison.json").read_text())
    assert list(written["models"]) == ["simple-cnn", "simple-cnn (onnx)", "simple-cnn (int8)"]
    (pair,) = [
        pair for pair in written["pairs"] if (pair["first"], pair["second"]) == tuple(list(written["models"])[:2])
    ]
    assert (pair["only_first_right"], pair["only_second_right"]) == (0, 0)


def test_all_runs_of_a_summary_answer_by_their_files(tmp_path, dataset_folder, succeeds, fails):
    folders = [push(tmp_path / "hub", dataset_folder, seed=seed) for seed in (1, 2)]
    pushed = [
        {"model": "hfprobe/simple-cnn", "revision": one.name, "hub_dir": str(tmp_path / "hub")} for one in folders
    ]
    (tmp_path / "runs.json").write_text(json.dumps({"seeds": [1, 2], "models": pushed}))
    hfprobe.load(folders[0]).export()
    what = ["--seeds", tmp_path / "runs.json", "--runtime", "onnx"]
    expected = f"--runtime onnx needs an export, and 'hfprobe/simple-cnn@{folders[1].name[:12]}' has none. Export it: "
    assert fails("eval.py", *what).startswith(expected)  # before the first is evaluated
    hfprobe.load(folders[1]).export()
    assert "--runtime" not in succeeds("eval.py", *what)
    for seed in (1, 2):
        assert EvalResult.load(tmp_path / "reports" / "runs-onnx" / f"seed{seed}").provenance.runtime == "onnx"


def test_evaluations_of_one_model_in_python_are_named_by_runtime(hub):
    results = [load("simple-cnn", runtime, hub).evaluate() for runtime in ("torch", "int8", "int8")]
    assert name_results(results[:2]) == ["simple-cnn", "simple-cnn (int8)"]
    revision = results[0].provenance.model_revision[:7]
    assert name_results(results[1:]) == [f"simple-cnn@{revision} (int8) ({number})" for number in (1, 2)]
    other = replace(results[0], provenance=replace(results[0].provenance, model_revision="other"))
    with pytest.raises(InputError, match=re.escape("are not runs of one model, their runtimes differ: int8 and torch")):
        make_comparable({"one": [other, results[1]], "two": results[0]}, places=["a", "b", "c"])


def test_the_page_of_predictions_names_the_runtime(hub, succeeds, tmp_path):
    PIL.Image.fromarray(draw_images(1, classes=5)[0][0]).save(tmp_path / "a.png")
    how = ["--model", "simple-cnn", "--hub_dir", hub, "--runtime", "int8", "--html", "sheet.html"]
    path, label, probability, _ = succeeds("predict.py", "a.png", *how).strip().split("\t")
    wanted = load("simple-cnn", "int8", hub).predict(tmp_path / "a.png")
    assert (path, label, probability) == ("a.png", wanted.labels[0], f"{wanted.confidences[0]:.4f}")
    assert "<h1>1 image classified by simple-cnn (int8)</h1>" in (tmp_path / "sheet.html").read_text()


@pytest.mark.parametrize("script", ["eval.py", "predict.py"])
def test_a_model_without_the_export_is_refused(hub, fails, tmp_path, dataset_folder, script):
    PIL.Image.fromarray(draw_images(1, classes=5)[0][0]).save(tmp_path / "photo.png")
    what = [script, *(["photo.png"] if script == "predict.py" else [])]
    push(tmp_path / "hub", dataset_folder)
    start, end = fails(*what, "--model", "simple-cnn", "--runtime", "onnx").split("Export it: ")
    assert start == "--runtime onnx needs an export, and 'simple-cnn' has none. "
    assert end.endswith("/export.py --model simple-cnn")
    start, end = fails(*what, "--model", "linear-probe", "--hub_dir", hub, "--runtime", "int8").split("Export it: ")
    assert start == "--runtime int8 needs 'model_quantized.onnx', and the export of 'linear-probe' has none. "
    assert end.endswith(f"/export.py --model linear-probe --hub_dir {hub} --quantize int8")
    assert fails(*what, "--model", "simple-cnn", "--runtime", "tflite") == (
        "argument --runtime: invalid choice: 'tflite' (choose from 'torch', 'onnx', 'int8')"
    )


def test_without_onnxruntime_one_line_says_how_to_install_it(hub, monkeypatch):
    monkeypatch.setattr(result, "find_spec", lambda name: None)
    message = "runtime onnx needs onnxruntime. Install the extra: pip install 'hfprobe[export]'"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load("simple-cnn", "onnx", hub)
    assert load("simple-cnn", "torch", hub).network is None


def test_a_damaged_or_stale_export_is_refused(hub, tmp_path, dataset_folder):
    folder = tmp_path / "model"
    shutil.copytree(hfprobe.load("simple-cnn", hub_dir=hub).folder, folder)
    (folder / EXPORT_FOLDER / INT8_NETWORK).write_bytes(b"")
    with pytest.raises(InputError, match=re.escape("onnx/model_quantized.onnx' is damaged: ")):
        hfprobe.load(folder, runtime="onnx")
    for file in push(tmp_path / "hub", dataset_folder, seed=1).iterdir():
        shutil.copy(file, folder)
    with pytest.raises(InputError, match=re.escape("onnx' is stale: it was made from ")):
        hfprobe.load(folder, runtime="int8")


def test_flags_that_do_not_apply_are_refused(hub, fails):
    assert fails("eval.py", "--report_only", "--report_dir", "reports/x", "--runtime", "int8") == (
        "--report_only does not evaluate the model, so --runtime has no effect. Leave one of them out."
    )
    with pytest.raises(InputError, match=re.escape("runtime is 'tflite'; allowed: 'torch', 'onnx', 'int8'.")):
        load("simple-cnn", "tflite", hub)


def test_on_a_machine_with_a_gpu_the_file_runs_on_the_processor_and_a_line_says_so(hub, monkeypatch, caplog):
    monkeypatch.setattr(runtimes, "find_device", lambda: torch.device("cuda"))
    model = load("simple-cnn", "onnx", hub)
    assert len(model.predict(list(draw_images(2, classes=5)[0]))) == 2
    assert caplog.messages[0] == "Files of an export run on the CPU, so the GPU of this machine is not used."


def test_torch_needs_no_file(tmp_path):
    assert find_network(tmp_path, "torch", model="m") is None
