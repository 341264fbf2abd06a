import numpy as np
import pytest
import torch

from helpers.images import draw_images
from hfprobe.data.pixels.resident import ResidentBatches, resident_bytes
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.models import build_model, find_family

CPU = torch.device("cpu")


def make_batches(*, side=32, size=32, **values):
    options = find_family("cnn").recipe_options(image_size=side)
    processor = build_model("cnn", labels=list("abcd"), options=options)[1]
    images, labels = draw_images(64, classes=4, size=size)
    split = ImageSplit(images=images, labels=labels, index=np.arange(64) * 3)
    return ImageBatches(split, processor=processor, seed=5, **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mirror": True},
        {"augment": {}},
        {"augment": {"crop": "shift", "shift": 7, "padding": "reflect", "flips": "alternating"}},
        {"augment": {"shift": 31}, "side": 64, "size": 64},
        {"augment": {"padding": "reflect"}, "side": 64},  # images of 32 are enlarged
    ],
    ids=str,
)
def test_batches_equal_those_of_the_host_to_the_bit(values):
    host = make_batches(**values)
    resident = ResidentBatches(host, device=CPU)
    generator = np.random.default_rng(0)
    for epoch in (None, 0, 1, 2, 7):
        if epoch is not None:
            host.set_epoch(epoch)
            resident.set_epoch(epoch)
        positions = generator.permutation(64)[:23]
        found, expected = resident.__getitems__(positions.tolist()), host.__getitems__(positions)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor)
            assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride())
    assert torch.equal(resident[11]["pixel_values"], host[11]["pixel_values"])


def test_a_part_of_them_has_the_same_batches():
    host = make_batches(augment={})
    some = ResidentBatches(host, device=CPU).take(np.array([40, 3, 17]))
    assert isinstance(some, ResidentBatches)
    assert torch.equal(some.__getitems__([1, 2])["pixel_values"], host.__getitems__([3, 17])["pixel_values"])


def test_statistics_that_are_set_later_count():
    """Those of the training images are computed, and those of a checkpoint are read, after the inputs are made."""
    host = make_batches()
    resident = ResidentBatches(host, device=CPU)
    before = resident[0]["pixel_values"]
    host.processor.image_mean = [0.1, 0.2, 0.3]
    assert torch.equal(resident[0]["pixel_values"], host[0]["pixel_values"])
    assert not torch.equal(resident[0]["pixel_values"], before)


def test_the_size_that_is_announced_is_that_of_the_tensors():
    host = make_batches(augment={}, side=64)
    resident = ResidentBatches(host, device=CPU)
    assert resident_bytes(host) == resident.images.nbytes + resident.labels.nbytes + resident.draws.nbytes


def test_resized_crops_are_refused():
    with pytest.raises(ValueError, match="The crops are resized; allowed: shift"):
        ResidentBatches(make_batches(augment={"crop": "resized"}), device=CPU)
