import numpy as np
import PIL.Image
import pytest
import torch

from helpers.images import draw_images
from hfprobe.data.store import ImageBatches, ImageSplit
from hfprobe.data.transforms import crop_and_flip, fit_images, keyed_uniform, normalize
from hfprobe.models import build_model, find_family


@pytest.fixture(scope="module")
def processor():
    return build_model("cnn", labels=["a", "b"], options=find_family("cnn").recipe_options())[1]


@pytest.fixture(scope="module")
def split():
    images, labels = draw_images(64, classes=4)
    return ImageSplit(images=images, labels=labels, index=np.arange(64) * 3)


def test_random_numbers_depend_only_on_seed_epoch_and_index():
    index = np.arange(1000)
    draws = keyed_uniform(seed=1, epoch=2, index=index, draws=3)
    np.testing.assert_array_equal(keyed_uniform(seed=1, epoch=2, index=index[::-1], draws=3), draws[::-1])
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}, {"seed": 2, "epoch": 1}):
        assert (keyed_uniform(**other, index=index, draws=3) != draws).all()


def test_random_numbers_are_uniform_and_uncorrelated():
    draws = keyed_uniform(seed=42, epoch=0, index=np.arange(40_000), draws=3)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws[:, 0], bins=9, range=(0, 1))[0]
    # 6 standard deviations of a binomial count
    assert np.abs(counts - 40_000 / 9).max() < 6 * np.sqrt(40_000 * (1 / 9) * (8 / 9))
    next_epoch = keyed_uniform(seed=42, epoch=1, index=np.arange(40_000), draws=3)
    correlations = np.corrcoef(np.concatenate([draws, next_epoch], axis=1).T) - np.eye(6)
    assert np.abs(correlations).max() < 6 / np.sqrt(40_000)


@pytest.mark.parametrize("pad", [2, 4])
@pytest.mark.parametrize(("padding", "mode"), [("black", "constant"), ("reflect", "reflect")])
def test_crop_is_a_window_of_the_padded_image_or_its_mirror(padding, mode, pad):
    images, _ = draw_images(200, classes=4)
    index = np.arange(200)
    key = {"seed": 0, "epoch": 0, "index": index}
    augmented = crop_and_flip(torch.from_numpy(images), **key, shift=pad, padding=padding).numpy()
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
    seen = set()
    for before, after in zip(padded, augmented, strict=True):
        windows = {
            (y, x, flip): before[y : y + 32, x : x + 32][:, :: -1 if flip else 1]
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            for flip in (False, True)
        }
        matches = [key for key, window in windows.items() if np.array_equal(window, after)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {key[0] for key in seen} == {key[1] for key in seen} == set(range(2 * pad + 1))
    assert {key[2] for key in seen} == {False, True}


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs():
    # One row of pixels tells a mirror image whatever the crop: a ramp rises, or falls.
    ramp = torch.arange(32, dtype=torch.uint8)[None, None, :, None].expand(100, 32, 32, 3)
    sides = [
        crop_and_flip(ramp, seed=0, epoch=epoch, index=np.arange(100), padding="reflect", flips="alternating")
        for epoch in range(3)
    ]
    falls = [(side[:, 16, 20, 0] < side[:, 16, 10, 0]).numpy() for side in sides]
    assert 20 < falls[0].sum() < 80
    np.testing.assert_array_equal(falls[1], ~falls[0])
    np.testing.assert_array_equal(falls[2], falls[0])


def test_fit_and_normalize_equal_the_image_processor(processor, split):
    pictures = [PIL.Image.fromarray(image) for image in split.images]
    expected = processor(pictures, return_tensors="pt")["pixel_values"]
    found = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    found = normalize(fit_images(found, processor=processor), processor=processor)
    assert torch.equal(found, expected)


def test_pixels_of_an_epoch_do_not_depend_on_workers_order_or_batch_size(processor, split):
    def pixels(*, workers, batch_size, order, persistent=False):
        batches = ImageBatches(split, processor=processor, augment={}, seed=5)
        loader = torch.utils.data.DataLoader(
            batches,
            batch_size=batch_size,
            sampler=order,
            num_workers=workers,
            collate_fn=lambda batch: batch,
            persistent_workers=persistent,
        )
        for epoch in (0, 3):  # the second epoch must reach living workers too
            batches.set_epoch(epoch)
            result = torch.cat([batch["pixel_values"] for batch in loader])
        return result[np.argsort(order)]

    forwards, backwards = list(range(64)), list(range(63, -1, -1))
    expected = pixels(workers=0, batch_size=16, order=forwards)
    assert torch.equal(pixels(workers=0, batch_size=7, order=backwards), expected)
    assert torch.equal(pixels(workers=2, batch_size=16, order=backwards, persistent=True), expected)
    batches = ImageBatches(split, processor=processor, augment={}, seed=5)
    batches.set_epoch(3)
    assert torch.equal(batches[11]["pixel_values"], expected[11])


def test_evaluation_images_are_not_augmented(processor, split):
    batches = ImageBatches(split, processor=processor)
    first = batches.__getitems__([3, 4])
    batches.set_epoch(9)
    assert torch.equal(batches.__getitems__([3, 4])["pixel_values"], first["pixel_values"])
    assert first["labels"].tolist() == split.labels[[3, 4]].tolist()
