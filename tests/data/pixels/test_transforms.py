import math

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.images import draw_images
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.pixels.transforms import crop_and_flip, fit_images, keyed_uniform, normalize
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


@pytest.mark.parametrize(("size", "largest"), [(32, 4), (64, 8), (48, 6)])
def test_shift_is_a_share_of_the_side(size, largest):
    position = torch.arange(1, size + 1, dtype=torch.uint8)[:, None, None].expand(size, size, 3)
    key = {"seed": 0, "epoch": 0, "index": np.arange(500)}
    shifted = crop_and_flip(position.expand(500, size, size, 3), **key)
    middle = shifted[:, size // 2, size // 2, 0].int() - (size // 2 + 1)
    assert set(middle.tolist()) == set(range(-largest, largest + 1))


def resized(images, **key):
    return crop_and_flip(images, **{"seed": 0, "epoch": 0, "index": np.arange(len(images))} | key, crop="resized")


def test_resized_crops_show_a_third_of_an_image_or_more_all_of_its_parts_and_both_sides():
    # Of each pixel, the row and the column are known by its colour.
    place = torch.arange(64, dtype=torch.uint8) * 4
    image = torch.stack([place[:, None].expand(64, 64), place.expand(64, 64), torch.zeros(64, 64)], dim=-1)
    crops = resized(image.to(torch.uint8).expand(2000, 64, 64, 3)).numpy().astype(float) / 4
    rows, columns = crops[:, :, 32, 0], crops[:, 32, :, 1]
    mirrored = columns[:, 0] > columns[:, -1]
    assert 800 < mirrored.sum() < 1200
    columns[mirrored] = columns[mirrored, ::-1]
    assert (np.diff(rows) >= 0).all()
    assert (np.diff(columns) >= 0).all()
    # From the inner pixels, because those at the edge are cut off.
    height, width = ((side[:, 48] - side[:, 16]) / 32 for side in (rows, columns))
    assert (height * width).min() > 0.35 - 0.03
    assert (height * width).max() > 0.9
    assert (height / width).max() < 4 / 3 + 0.1
    assert (width / height).max() < 4 / 3 + 0.1
    assert 0.6 < (height * width).mean() < 0.7
    for side in (rows, columns):
        assert side.min() == 0
        assert side.max() == 63


def test_resized_crop_is_the_bilinear_interpolation_of_its_part():
    images, _ = draw_images(20, classes=4, size=64)
    draws = keyed_uniform(seed=0, epoch=0, index=np.arange(20), draws=5)
    found = resized(torch.from_numpy(images)).numpy().astype(int)
    for image, (down, right, mirror, area, ratio), crop in zip(images, draws, found, strict=True):
        area, ratio = 0.35 + 0.65 * area, (4 / 3) ** (2 * ratio - 1)
        height, width = (min(1, math.sqrt(share)) * 64 for share in (area / ratio, area * ratio))
        top, left = down * (64 - height), right * (64 - width)
        transform = (width / 64, 0, left, 0, height / 64, top)
        padded = PIL.Image.fromarray(np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge"))
        transform = (width / 64, 0, left + 1, 0, height / 64, top + 1)
        expected = np.asarray(padded.transform((64, 64), PIL.Image.AFFINE, transform, PIL.Image.BILINEAR)).astype(int)
        if mirror < 0.5:
            expected = expected[:, ::-1]
        assert np.abs(crop - expected).max() <= 2  # Pillow rounds down


def test_crop_of_an_image_of_one_colour_is_the_image():
    image = torch.full((3, 64, 64, 3), 200, dtype=torch.uint8)
    assert torch.equal(resized(image), image)


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
    images = [PIL.Image.fromarray(image) for image in split.images]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    found = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    found = normalize(fit_images(found, processor=processor), processor=processor)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(10, 400), (400, 10)], ids=str)
def test_only_the_middle_of_a_very_long_image_is_resized(shape, monkeypatch):
    options = find_family("cnn").recipe_options(image_size=64)
    processor = build_model("cnn", labels=["a", "b"], options=options)[1]
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)).permute(2, 0, 1)[
        None
    ]
    whole = processor.center_crop(
        processor.resize(image=pixels, size=processor.size, resample=processor.resample), processor.crop_size
    )
    resize, seen = processor.resize, []
    monkeypatch.setattr(
        processor, "resize", lambda image, **values: seen.append(image.shape) or resize(image, **values)
    )
    assert torch.equal(fit_images(pixels, processor=processor), whole)
    assert max(seen[0]) == 80


@pytest.mark.parametrize("augment", [{}, {"crop": "resized"}], ids=str)
def test_pixels_of_an_epoch_do_not_depend_on_workers_order_or_batch_size(processor, split, augment):
    def pixels(*, workers, batch_size, order, persistent=False):
        batches = ImageBatches(split, processor=processor, augment=augment, seed=5)
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
    batches = ImageBatches(split, processor=processor, augment=augment, seed=5)
    batches.set_epoch(3)
    assert torch.equal(batches[11]["pixel_values"], expected[11])


def test_evaluation_images_are_not_augmented(processor, split):
    batches = ImageBatches(split, processor=processor)
    first = batches.__getitems__([3, 4])
    batches.set_epoch(9)
    assert torch.equal(batches.__getitems__([3, 4])["pixel_values"], first["pixel_values"])
    assert first["labels"].tolist() == split.labels[[3, 4]].tolist()
