import json
import re
import shutil
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

import hfprobe
from helpers.exported import push, run_in_node, run_snippet
from helpers.image_kinds import KINDS
from helpers.images import CLASSES
from helpers.with_onnx import onnx
from hfprobe.hub.local import list_revisions, resolve_model
from hfprobe.models.onnx_files import open_session
from hfprobe.system.errors import CheckFailedError, InputError
from hfprobe.tasks.export import measure
from hfprobe.tasks.export.measure import check_parity, find_stale
from hfprobe.tasks.export.parity import Answers, compare_answers
from hfprobe.tasks.export.result import CLASSIFIER, NETWORK, Export, check_export

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, dataset_folder, narrow_network):
    """A trained model in a hub folder with its export: (folder of the model, record)."""
    hub = tmp_path_factory.mktemp("hub")
    images = hfprobe.load_images(str(dataset_folder))
    places = {"hub_dir": str(hub), "output_dir": str(hub.parent / f"{hub.name}-run")}
    model = hfprobe.train("cnn", images, epochs=3, batch_size=40, use_cpu=True, report_to="none", **places)
    return model.folder, model.export()


def test_the_files_answer_the_test_images_as_the_model(exported):
    folder, export = exported
    assert export.parity.keys() == {CLASSIFIER, NETWORK} == export.files.keys()
    assert export.accuracy > 0.5
    assert export.accuracy == hfprobe.load(folder).evaluate().metrics.accuracy
    for parity in export.parity.values():
        assert (parity.n, parity.differing, parity.clear) == (60, 0, 0)
        assert parity.largest < 1e-5
        assert parity.accuracy == export.accuracy
        low, high = parity.difference.interval
        assert low < parity.difference.value == 0 < high
    assert len(export.sentences) == 2
    assert "classifier.onnx: 0 of 60 answers differ on test" in export.verdict


def test_the_export_lies_in_the_same_revision_which_is_still_intact(exported):
    folder, export = exported
    hub = folder.parents[2]
    assert resolve_model(model=f"{export.model}@{export.revision}", hub_dir=hub) == folder
    assert len(list_revisions(hub_dir=hub, name=export.model)) == 1
    assert Export.load(folder / "onnx") == export == check_export(folder)
    assert {file.name for file in (folder / "onnx").iterdir()} == {CLASSIFIER, NETWORK, Export.FILE}
    assert not list((hub / ".locks").rglob(".export-*"))


def test_the_metadata_say_which_model_it_is_and_hold_no_path(exported):
    folder, export = exported
    for name in (CLASSIFIER, NETWORK):
        graph = onnx.load(folder / "onnx" / name)
        facts = {entry.key: entry.value for entry in graph.metadata_props}
        assert json.loads(facts["class_names"]) == CLASSES
        assert json.loads(facts["temperature"]) == export.temperature > 0
        assert (facts["revision"], facts["hfprobe_version"]) == (folder.name, hfprobe.__version__)
        assert (graph.producer_name, json.loads(facts["opset"])) == ("hfprobe", export.opset)
        assert {entry.version for entry in graph.opset_import if not entry.domain} == {export.opset}
        content = (folder / "onnx" / name).read_bytes()
        assert b".py" not in content
        assert str(folder.parents[2]).encode() not in content
    assert "/" not in (folder / "onnx" / Export.FILE).read_text().replace(export.hardware.processor, "")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_network_takes_any_batch(exported, batch):
    folder, _ = exported
    session = open_session(folder / "onnx" / NETWORK)
    assert session.run(None, {"pixel_values": np.zeros((batch, 3, 32, 32), np.float32)})[0].shape == (batch, 5)


@pytest.mark.parametrize("size", [(32, 32), (200, 90), (9, 14), (33, 400)])
def test_pictures_of_any_size_have_the_probabilities_of_predict(exported, size):
    folder, _ = exported
    generator = np.random.default_rng(0)
    images = [PIL.Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))]
    images += [images[0].convert("L").convert("RGB")]
    session = open_session(folder / "onnx" / CLASSIFIER)
    predictions = hfprobe.load(folder).predict(images, temperature=True)
    for image, wanted in zip(images, predictions.probabilities, strict=True):
        (found,) = session.run(["probabilities"], {"image": np.asarray(image)})
        assert np.abs(found[0] - wanted).max() < 1e-5


@pytest.mark.parametrize("kind", ["RGB PNG", "turned JPEG", "L PNG", "P PNG", "CMYK TIFF"])
def test_a_process_without_torch_classifies_a_file_as_predict_does(exported, tmp_path, kind):
    folder, _ = exported
    shutil.copy(folder / "onnx" / CLASSIFIER, tmp_path)
    (tmp_path / "photo.png").write_bytes(KINDS[kind](90, 60)[0])  # Pillow looks at the content, not at the ending
    predictions = hfprobe.load(folder).predict(tmp_path / "photo.png", temperature=True)
    label, probability = run_snippet(tmp_path).split()
    assert label == predictions.labels[0]
    assert float(probability) == pytest.approx(predictions.confidences[0], abs=1e-4)


def test_node_gives_the_same_probabilities(exported, tmp_path):
    folder, _ = exported
    shutil.copy(folder / "onnx" / CLASSIFIER, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    (tmp_path / "photo.raw").write_bytes(image.tobytes())
    found = np.array(run_in_node(tmp_path).split(), dtype=float)
    wanted = hfprobe.load(folder).predict(image, temperature=True).probabilities[0]
    assert np.abs(found - wanted).max() < 1e-4


def test_a_model_without_a_temperature_has_plain_probabilities(tmp_path, dataset_folder, caplog):
    folder = push(tmp_path / "hub", dataset_folder, temperature=None)
    export = hfprobe.load(folder).export()
    assert export.temperature is None
    assert "This model has no temperature, so the probabilities of the export are not calibrated." in caplog.messages
    image = np.full((40, 30, 3), 100, np.uint8)
    (found,) = open_session(folder / "onnx" / CLASSIFIER).run(["probabilities"], {"image": image})
    assert np.abs(found - hfprobe.load(folder).predict(image).probabilities).max() < 1e-5


@pytest.mark.slow
def test_a_probe_is_exported_with_its_own_preprocessing(tmp_path, dataset_folder):
    folder = push(tmp_path, dataset_folder, name="probe", backbone="test_byobnet", backbone_weights="random")
    export = hfprobe.load(folder).export()
    assert [parity.differing for parity in export.parity.values()] == [0, 0]


def test_a_stale_export_is_noticed_and_replaced(exported, tmp_path, dataset_folder, caplog):
    folder = tmp_path / "model"
    shutil.copytree(exported[0], folder)
    assert find_stale(folder) is None
    for file in push(tmp_path / "hub", dataset_folder, seed=1).iterdir():
        shutil.copy(file, folder)
    message = f"The export in '{folder}/onnx' is stale: it was made from {exported[1].model}@"
    with pytest.raises(InputError, match=re.escape(message)):
        check_export(folder)
    export = hfprobe.load(folder).export()
    assert any("was replaced: The export in" in line for line in caplog.messages)
    assert check_export(folder) == export != exported[1]


def test_a_damaged_or_missing_export_is_named_and_the_model_stays_usable(exported, tmp_path):
    hub = tmp_path / "hub"
    shutil.copytree(exported[0].parents[2], hub, symlinks=True)
    folder = resolve_model(model=exported[1].model, hub_dir=hub)
    (folder / "onnx" / NETWORK).write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(f"'{folder}/onnx/model.onnx' is damaged: it is not the file that")):
        check_export(folder)
    assert hfprobe.load(exported[1].model, hub_dir=hub).folder == folder
    shutil.rmtree(folder / "onnx")
    with pytest.raises(InputError, match=re.escape("holds no export (parity.json: No such file or directory). Export")):
        check_export(folder)


def test_files_that_answer_otherwise_are_not_published(exported, tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    shutil.copytree(exported[0].parents[2], hub, symlinks=True)
    folder = resolve_model(model=exported[1].model, hub_dir=hub)
    build = measure.build_network

    def build_another(model, processor):
        model.classifier[-1].bias.data[0] += 50
        network = build(model, processor)
        model.classifier[-1].bias.data[0] -= 50
        return network

    monkeypatch.setattr(measure, "build_network", build_another)
    with pytest.raises(CheckFailedError, match=re.escape("'classifier.onnx' does not answer as the model: ")) as failed:
        hfprobe.load(folder).export()
    assert "of 60 answers differ" in str(failed.value)
    assert check_export(folder) == exported[1]
    assert not list((hub / ".locks").rglob(".export-*"))


def test_an_operator_that_the_exporter_does_not_know_is_named_with_the_backbone(exported, monkeypatch):
    import torch

    from hfprobe.models.simple_cnn.modeling import SimpleCNN

    forward = SimpleCNN.forward

    def with_an_unknown_operator(self, pixel_values, labels=None):
        torch.segment_reduce(pixel_values.flatten(), "sum", lengths=torch.tensor([3]), unsafe=True)
        found = forward(self, pixel_values, labels)
        found.logits = found.logits + torch.segment_reduce(
            found.logits, "sum", lengths=torch.ones(2, dtype=torch.int64), unsafe=True, axis=0
        )
        return found

    monkeypatch.setattr(SimpleCNN, "forward", with_an_unknown_operator)
    with pytest.raises(InputError, match=re.escape("'SimpleCNN' cannot be exported: the exporter does not know its")):
        hfprobe.load(exported[0]).export()


def test_answers_within_the_rounding_are_no_clear_difference():
    logits = np.array([[1.0, 1.0005], [1.0, 2.0], [3.0, 1.0]], np.float32)
    other = np.array([[1.0005, 1.0], [1.0, 2.0], [1.0, 3.0]], np.float32)
    own, exported = (Answers(values, values / values.sum(1, keepdims=True)) for values in (logits, other))
    parity = compare_answers(own, exported, np.array([1, 1, 1]), rounding=1e-3)
    assert (parity.n, parity.differing, parity.clear) == (3, 2, 1)
    assert parity.difference.value == 0  # one more, one fewer
    assert parity.difference.p == 1


def test_a_large_difference_of_a_probability_is_refused_even_if_no_answer_changes(exported):
    _, export = exported
    worse = {NETWORK: replace(export.parity[NETWORK], largest=0.01)}
    with pytest.raises(CheckFailedError, match=re.escape("the largest difference of a probability is 0.01 (allowed:")):
        check_parity(replace(export, parity=export.parity | worse))


def test_classes_of_other_images_are_refused(exported, dataset_folder):
    images = hfprobe.load_images(str(dataset_folder), classes=["cat", "dog"])
    with pytest.raises(InputError, match=re.escape("The labels of the model (airplane, automobile, bird, ")):
        hfprobe.load(exported[0]).export(images)
