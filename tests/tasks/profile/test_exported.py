import pytest

import hfprobe
from helpers.exported import push
from helpers.with_onnx import onnx  # noqa: F401  skips without the extra
from hfprobe.models import find_family
from hfprobe.tasks.export.result import check_export
from hfprobe.tasks.profile import measure, timing
from hfprobe.tasks.profile.measure import profile_models
from hfprobe.tasks.profile.page import write_profile
from hfprobe.tasks.profile.result import Profile

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def profile(monkeypatch, tmp_path):
    """Profile one model folder: (record, page)."""
    monkeypatch.setattr(measure, "peak_memory", lambda *_, **__: 1)
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0)
    monkeypatch.setattr(find_family("cnn"), "profile_batch_size", 4)

    def run(folder):
        found = profile_models({"cnn": folder}, batch_sizes=[1], rounds=5, seconds=0.001, trace_dir=tmp_path)
        found.save(tmp_path)
        return Profile.load(tmp_path), write_profile(found, tmp_path).read_text()

    return run


def test_the_files_of_an_export_are_timed_beside_the_model(profile, tmp_path, dataset_folder):
    folder = push(tmp_path / "hub", dataset_folder)
    images = hfprobe.load_images(str(dataset_folder))
    hfprobe.load(folder).export(images)
    found, page = profile(folder)
    (cnn,) = found.models.values()
    assert cnn.exported.keys() == {"model.onnx"}
    exported = cnn.exported["model.onnx"]
    assert exported.batches.keys() == cnn.batches.keys() == {1, 4}
    assert exported.disk_bytes == (folder / "onnx" / "model.onnx").stat().st_size
    assert found.versions["onnxruntime"]
    speeds = [exported.batches[size].throughput.median / cnn.batches[size].throughput.median for size in (4, 1)]
    assert f"| cnn, model.onnx | {speeds[0]:.2f} | {speeds[1]:.2f} | {exported.disk_bytes / 1e6:.1f} MB |" in page
    assert exported.parity == check_export(folder).parity["model.onnx"]
    accuracy = f"{100 * hfprobe.load(folder).evaluate().metrics.accuracy:.2f}\u00a0%"
    assert f"MB | {accuracy} on test | +0.00 (-" in page
    assert "| 0 of 60 |" in page


def test_a_comparison_with_the_profile_shows_the_files_of_the_model_on_the_same_images(
    profile, tmp_path, dataset_folder
):
    folder = push(tmp_path / "hub", dataset_folder)
    hfprobe.load(folder).export()
    found, _ = profile(folder)
    results = {runtime: hfprobe.load(folder, runtime=runtime).evaluate() for runtime in ("torch", "onnx")}
    costs = found.find_costs(results)
    single = found.models["cnn"].exported["model.onnx"].batches[1].latency_ms
    (exported,) = costs["torch"].exported.values()
    assert (exported.accuracy, exported.differing, exported.n) == (results["torch"].metrics.accuracy, 0, 60)
    assert exported.single_latency_ms == single == costs["onnx"].single_latency_ms
    assert (costs["onnx"].exported, costs["onnx"].precision, costs["onnx"].operators) == ({}, "float32", {})
    fewer = hfprobe.load(folder).evaluate(hfprobe.load_images(str(dataset_folder), max_eval_samples=20))
    assert found.find_costs({"fewer": fewer})["fewer"].exported == {}


def test_a_damaged_export_is_named_and_the_model_profiled_alone(profile, tmp_path, dataset_folder, caplog):
    folder = push(tmp_path / "hub", dataset_folder)
    (folder / "onnx").mkdir()
    found, page = profile(folder)
    assert found.models["cnn"].exported == {}
    assert "onnx" not in page
    (line,) = [record.getMessage() for record in caplog.records if "not timed" in record.getMessage()]
    assert line.startswith("The export of cnn is not timed. ")
    assert "parity.json" in line
