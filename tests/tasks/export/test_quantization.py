import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest

import hfprobe
from helpers.exported import push
from helpers.with_onnx import onnx
from hfprobe.models.onnx_files import open_session
from hfprobe.statistics.paired import Difference
from hfprobe.system.errors import CheckFailedError, InputError
from hfprobe.tasks.export import measure, quantization
from hfprobe.tasks.export.quantization import check_loss, choose_method, find_head, write_quantized
from hfprobe.tasks.export.result import INT8_CLASSIFIER, INT8_NETWORK, METHODS, Candidate, Export, Speed, check_export

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, dataset_folder, narrow_network):
    """A model with its export in int8: (folder of the model, record)."""
    folder = push(tmp_path_factory.mktemp("hub"), dataset_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, "ROUNDS", 1)
        return folder, hfprobe.load(folder).export(quantize="int8", max_loss=100)


def test_int8_is_measured_on_test_and_published_beside_float32(quantized):
    folder, export = quantized
    assert list(export.parity) == ["classifier.onnx", "model.onnx", INT8_CLASSIFIER, INT8_NETWORK]
    assert export.parity.keys() == export.files.keys()
    assert check_export(folder) == export == Export.load(folder / "onnx")
    parity = export.parity[INT8_CLASSIFIER]
    assert parity.n == 60
    assert 0 < parity.largest < 0.5
    assert parity.difference.value == pytest.approx(parity.accuracy - export.accuracy)
    found = export.quantization
    assert (found.calibrated_on, found.chosen_on) == (160, 40)
    assert found.candidates.keys() == {"static", "dynamic"}
    kept = onnx.load(folder / "onnx" / INT8_NETWORK)
    facts = {entry.key: entry.value for entry in kept.metadata_props}
    assert facts["precision"] == f"int8, {found.kept}"
    assert json.loads(facts["class_names"]) == export.class_names
    sizes = {name: (folder / "onnx" / name).stat().st_size for name in export.files}
    assert sizes[INT8_NETWORK] < sizes["model.onnx"] / 2


def test_both_files_in_int8_give_the_same_answers(quantized):
    folder, _ = quantized
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mean, std = (np.array(getattr(hfprobe.load(folder).processor, name)) for name in ("image_mean", "image_std"))
    pixels = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    logits, _ = open_session(folder / "onnx" / INT8_CLASSIFIER).run(None, {"image": image})
    (others,) = open_session(folder / "onnx" / INT8_NETWORK).run(None, {"pixel_values": pixels})
    assert np.abs(logits - others).max() < 0.1  # a value beside the edge of a step may fall to the other side


def test_the_page_says_what_was_kept_and_if_it_is_slower_or_the_loss_is_not_ruled_out(quantized):
    _, export = quantized
    found = export.quantization
    assert f"{found.kept} int8 is kept: " in export.verdict
    assert not any("do not rule out" in sentence for sentence in export.sentences)  # 100 points are allowed
    strict = replace(found, max_loss=0.0)
    assert any(
        "These images do not rule out that int8 loses more than 0 points: the interval reaches " in sentence
        for sentence in replace(export, quantization=strict).sentences
    )
    speed = found.candidates[found.kept].speed
    for single, batches in itertools.product((2, 0.5), repeat=2):  # how many times as fast as float32
        rate = speed.images_per_second / batches
        full = replace(found.full, milliseconds=single * speed.milliseconds, images_per_second=rate)
        told = " ".join(replace(found, full=full).sentences)
        assert ("int8 is slower than float32 for one image (2.0 times as long)" in told) == (single < 1)
        assert ("int8 is slower than float32 in batches (2.0 times as long)" in told) == (batches < 1)


@pytest.mark.parametrize("method", METHODS)
def test_the_head_stays_in_float32_and_the_rest_does_not(method, quantized, tmp_path):
    folder, _ = quantized
    network = onnx.load(folder / "onnx" / "model.onnx")
    head = network.graph.node[-1]
    assert head.op_type == "Gemm"
    assert head.name in find_head(network)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    pixels = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    found = onnx.load(write_quantized(folder / "onnx" / "model.onnx", pixels, tmp_path)[method])
    kept = [onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer]
    assert any(
        np.array_equal(tensor, side) for tensor in kept for side in (weights[head.input[1]], weights[head.input[1]].T)
    )
    assert sum(tensor.dtype in (np.int8, np.uint8) and tensor.size > 1 for tensor in kept) >= 4


def candidate(points, milliseconds):
    return Candidate(
        Difference(points / 100, (points / 100 - 0.01, points / 100 + 0.01), 1.0), Speed(milliseconds, 1, 1)
    )


@pytest.mark.parametrize(
    ("static", "dynamic", "kept", "why"),
    [
        (candidate(-0.1, 2), candidate(-0.4, 1), "dynamic", "the faster one"),
        (candidate(-0.1, 2), candidate(-0.9, 1), "static", "the only one that loses at most 0.5 points"),
        (candidate(-1.5, 2), candidate(-0.9, 3), "dynamic", "the more accurate one, because both lose more than 0.5"),
    ],
)
def test_validation_chooses_the_method(static, dynamic, kept, why):
    found, reason = choose_method({"static": static, "dynamic": dynamic}, max_loss=0.5)
    assert found == kept
    assert f"{kept} int8 is kept: {why}" in reason


def test_a_loss_is_refused_if_its_interval_is_above_the_limit_and_nothing_is_written(
    quantized, tmp_path, dataset_folder, monkeypatch
):
    _, export = quantized
    parity = replace(
        export.parity[INT8_CLASSIFIER], n=5000, accuracy=0.88, difference=Difference(-0.02, (-0.026, -0.0149), 1e-9)
    )
    lossy = replace(export, accuracy=0.9, parity=export.parity | {INT8_CLASSIFIER: parity})
    check_loss(replace(lossy, quantization=replace(export.quantization, max_loss=1.5)), INT8_CLASSIFIER)
    strict = replace(lossy, quantization=replace(export.quantization, max_loss=0.5))
    expected = (
        "'classifier_quantized.onnx' loses 2.00 points of accuracy on 5,000 test images (95 % interval 1.49 to 2.60), "
        f"88.00% instead of 90.00%; allowed: at most 0.5. {export.quantization.reason} Nothing was written. Pass "
        "--quantize none, or a larger --max_loss."
    )
    with pytest.raises(CheckFailedError, match=re.escape(expected)):
        check_loss(strict, INT8_CLASSIFIER)
    folder = push(tmp_path / "hub", dataset_folder)
    monkeypatch.setattr(measure, "check_loss", lambda _, name: check_loss(strict, name))
    monkeypatch.setattr(quantization, "ROUNDS", 1)
    with pytest.raises(CheckFailedError):
        hfprobe.load(folder).export(quantize="int8")
    assert not (folder / "onnx").exists()


def test_without_training_images_int8_is_refused(quantized, tmp_path, dataset_folder):
    folder, export = quantized
    images = hfprobe.load_images(str(dataset_folder))
    del images.parts["train"]
    with pytest.raises(InputError, match=re.escape("quantize int8 needs train images, and '")):
        hfprobe.load(folder).export(images, quantize="int8")
    assert check_export(folder) == export


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "int4"}, "quantize is 'int4'; allowed: 'none', 'int8'."),
        ({"quantize": "int8", "max_loss": float("nan")}, "max_loss is nan; allowed: 0 to 100 percentage points."),
    ],
)
def test_invalid_settings(quantized, settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        hfprobe.load(quantized[0]).export(**settings)
