"""The card with results on test, made by the commands as a user types them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard

from helpers.exported import push
from helpers.results import make_result, with_provenance
from hfprobe.tasks.card.page import HUB_METRICS, index_entries, repeat_commands
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.export import extra

pytestmark = pytest.mark.usefixtures("narrow_network")
ROOT = Path(__file__).parents[3]
MAKE = ["card.py", "--model", "simple-cnn", "--report", "reports/cnn", "--output_dir", "card"]
EVALUATE = ["eval.py", "--model", "simple-cnn", "--report_dir", "reports/cnn"]


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def write_photo(folder):
    PIL.Image.linear_gradient("L").convert("RGB").resize((60, 45)).save(folder / "photo.png")


def run_python(code, folder):
    write_photo(folder)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def evaluated(succeeds, tmp_path, dataset_folder):
    """The snapshot of a pushed model, whose evaluation on test is in reports/cnn."""
    model = push(tmp_path / "hub", dataset_folder)
    succeeds(*EVALUATE)
    return model


def test_the_metrics_of_the_report_are_in_the_model_index_to_the_digit(succeeds, evaluated, tmp_path, dataset_folder):
    succeeds(*MAKE)
    result = EvalResult.load(tmp_path / "reports" / "cnn")
    data = ModelCard.load(tmp_path / "card" / "README.md").data
    found = [entry for entry in data.eval_results if entry.dataset_split == "test"]
    assert [entry.metric_type for entry in found] == list(HUB_METRICS.values()) == data.metrics
    for entry, name in zip(found, HUB_METRICS, strict=True):
        assert entry.metric_value == result.metrics[name]
        assert entry.metric_args == {
            "interval": list(result.metrics.intervals[name]), "confidence": 0.95, "n": result.metrics.n,
        }  # fmt: skip
        assert entry.dataset_type == dataset_folder.name
    pushed = ModelCard.load(evaluated / "README.md").data
    assert data.eval_results[:2] == pushed.eval_results
    assert {entry.dataset_split for entry in pushed.eval_results} == {"validation"}
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0", "transformers", "image-classification",
    )  # fmt: skip


def test_the_folder_holds_the_files_of_the_revision_the_figure_and_no_path_of_this_machine(
    succeeds, evaluated, tmp_path, dataset_folder
):
    before = {file.name: file.read_bytes() for file in evaluated.iterdir()}
    said = succeeds(*MAKE)
    assert said == "Card:   card/README.md\nUpload: hf upload <owner>/<name> card .\n"
    files = {file.name: file.read_bytes() for file in (tmp_path / "card").iterdir()}
    assert files.keys() == before.keys() | {"confusion_matrix.png"}
    assert all(files[name] == before[name] for name in before.keys() - {"README.md", "config.json"})
    assert {file.name: file.read_bytes() for file in evaluated.iterdir()} == before
    assert not [name for name, content in files.items() if str(dataset_folder.parent).encode() in content]
    text = files["README.md"].decode()
    assert re.search(r"!\[Confusion matrix [^]]*\]\(confusion_matrix\.png\)", text)
    assert [text.count(f"\n## {part}\n") for part in ("Results on the test images", "Limits of use", "Use")] == [1] * 3
    assert "\n\n## Results on the test images\n\n| metric | test (n = 60 images) | 95 % interval |" in text
    assert f"These are the results of revision `{evaluated.name}`." in text
    assert "onnx" not in text
    assert "For results on the test images, run" in (evaluated / "README.md").read_text()
    assert "For results on the test images, run" not in text
    assert not list(tmp_path.glob(".card-*"))


def test_the_command_on_the_card_repeats_the_evaluation(succeeds, evaluated, monkeypatch, tmp_path, dataset_folder):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "reports")
    succeeds(*EVALUATE, "--temperature", "--max_eval_samples", 30)
    succeeds(*MAKE)
    (block,) = re.findall(r"```bash\n(.*?)\n```", (tmp_path / "card" / "README.md").read_text(), re.DOTALL)
    assert block == f"hfprobe eval --model . --dataset {dataset_folder.name} --max_eval_samples 30 --temperature"
    flags = shlex.split(block)[2:]
    flags[1], flags[3] = str(tmp_path / "card"), str(dataset_folder)
    succeeds("eval.py", *flags, "--report_dir", "reports/again")
    first, second = (EvalResult.load(tmp_path / "reports" / name) for name in ("cnn", "again"))
    assert (first.probabilities == second.probabilities).all()
    assert "with the temperature" in " ".join((tmp_path / "card" / "README.md").read_text().split())


def test_the_card_is_valid_for_the_hub_and_names_its_place(succeeds, evaluated, server, tmp_path):
    succeeds(*MAKE, "--hub_model_id", "someone/cats")
    text = (tmp_path / "card" / "README.md").read_text()
    assert 'pipeline("image-classification", model="someone/cats", trust_remote_code=True)' in text
    assert "\nhf download someone/cats --local-dir model\nhfprobe eval --model model " in text
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["name"] == "hfprobe/simple-cnn"
    api = HfApi(token="hf_good")
    api.create_repo("someone/cats")
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="someone/cats")


def test_the_command_names_what_the_evaluation_depends_on():
    def command(**values):
        return repeat_commands(with_provenance(make_result(), **values), repository=None)

    assert command(dataset="a/b", run={"dataset": "a/b"}) == ["hfprobe eval --model ."]
    assert command(dataset="a/c", run={"dataset": "a/b"}) == ["hfprobe eval --model . --dataset a/c"]
    assert command(dataset="/home/me/my cats") == ["hfprobe eval --model . --dataset 'my cats'"]
    assert command(test_time_augmentation="mirror image", run={"dataset": ""}) == ["hfprobe eval --model . --tta"]
    assert command(dataset="memory:0123") == []
    assert command(dataset="/a\n```\n# b") == ["hfprobe eval --model . --dataset 'a\\n```\\n# b'"]


def test_names_of_folders_above_a_dataset_are_not_on_the_card():
    entries = index_entries(with_provenance(make_result(), dataset="/home/me/cats"))
    assert {entry.dataset_name for entry in entries} == {entry.dataset_type for entry in entries} == {"cats"}


@pytest.mark.slow
def test_the_pipeline_snippet_runs_in_the_folder(succeeds, evaluated, tmp_path):
    succeeds(*MAKE)
    (code,) = snippets((tmp_path / "card" / "README.md").read_text())
    assert "'score': " in run_python(code, tmp_path / "card")


def test_the_onnxruntime_snippet_runs_without_torch_and_the_card_says_how_its_answers_differ(
    succeeds, evaluated, tmp_path
):
    for name in extra.PACKAGES:
        pytest.importorskip(name, reason="the extra export is not installed")
    succeeds("export.py", "--model", "simple-cnn", "--max_eval_samples", 20)
    succeeds(*MAKE)
    text = (tmp_path / "card" / "README.md").read_text()
    assert "0 of 20 answers differ on test" in text
    blocked = "import sys; sys.modules |= dict.fromkeys(('torch', 'transformers', 'hfprobe'))\n"
    code = snippets(text)[1]
    said = run_python(blocked + code, tmp_path / "card").split()
    assert said[0] in EvalResult.load(tmp_path / "reports" / "cnn").class_names
    assert 0 < float(said[1]) <= 1


def test_reports_that_do_not_fit_are_one_line(succeeds, fails, evaluated, tmp_path, dataset_folder):
    again = f"python {ROOT}/scripts/eval.py --model simple-cnn@{evaluated.name[:12]} --report_dir reports/cnn"
    figure = tmp_path / "reports" / "cnn" / "confusion_matrix.png"
    content = figure.read_bytes()
    figure.write_bytes(content[:50])
    assert fails(*MAKE) == (
        "The report in 'reports/cnn' has no intact confusion_matrix.png. Write it again: "
        f"python {ROOT}/scripts/eval.py --report_only --report_dir reports/cnn"
    )
    figure.write_bytes(content)
    record = tmp_path / "reports" / "cnn" / "metrics.json"
    metrics = json.loads(record.read_text())
    provenance = metrics["provenance"] | {"runtime": "int8"}
    record.write_text(json.dumps(metrics | {"provenance": provenance}))
    message = fails(*MAKE)
    assert message.startswith(
        "The report in 'reports/cnn' is of the exported file in the runtime 'int8'; allowed: torch"
    )
    assert message.endswith(" --report_dir <folder>")  # not that of the exported file, which would be replaced
    record.write_text(json.dumps(metrics | {"accuracy": 0.99}))
    message = fails(*MAKE)
    assert message.startswith("The report in 'reports/cnn' was edited: its accuracy is 0.9900, and that of its pred")
    assert message.endswith(f"Evaluate the model again: {again}")
    succeeds(*EVALUATE, "--split", "validation")
    assert fails(*MAKE) == (
        f"The report in 'reports/cnn' is of the split 'validation'; allowed: test. Evaluate it: {again}"
    )
    succeeds(*EVALUATE)
    other = push(tmp_path / "hub", dataset_folder, seed=1)
    assert fails(*MAKE) == (
        f"The report in 'reports/cnn' is of simple-cnn, revision {evaluated.name[:12]}, and the model is revision "
        f"{other.name[:12]}. Evaluate this one: {again.replace(evaluated.name[:12], other.name[:12])}"
    )
    assert fails(*MAKE[:4], "reports/none", *MAKE[5:]).startswith("'reports/none' holds no evaluation (metrics.json")


@pytest.mark.slow
def test_the_snippets_load_the_uploaded_folder_from_the_hub(succeeds, evaluated, server, monkeypatch, capsys, tmp_path):
    for name in extra.PACKAGES:
        pytest.importorskip(name, reason="the extra export is not installed")
    succeeds("export.py", "--model", "simple-cnn", "--max_eval_samples", 20)
    succeeds(*MAKE, "--hub_model_id", "someone/cats")
    folder = tmp_path / "card"
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    server.add("models", "someone/cats", files)
    write_photo(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(folder)
    found = snippets(files["README.md"].decode())
    for code in found:
        exec(code, {})
    assert len(found) == 2
    said = capsys.readouterr().out
    assert "'score': " in said
    assert any("/someone/cats/resolve/main/onnx/classifier.onnx" in path for _, path in server.requests)
