from io import BytesIO

import datasets
import numpy as np
import PIL.Image
import pytest

from helpers.images import draw_images
from hfprobe.data.pixels.image_statistics import channel_statistics, header_sizes
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.models import build_model, find_family


def encode(width, height, kind="PNG"):
    buffer = BytesIO()
    PIL.Image.new("RGB", (width, height)).save(buffer, format=kind)
    return buffer.getvalue()


def make_rows(items):
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.Value("int64"))
    return datasets.Dataset.from_dict({"image": items, "label": [0] * len(items)}, features=features)


def test_sizes_are_read_from_bytes_and_files_without_decoding(tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(encode(400, 300, "JPEG"))
    contents = [encode(30, 90), encode(80, 50)]
    items = [{"bytes": content, "path": None} for content in contents]
    rows = make_rows([*items, {"bytes": None, "path": str(tmp_path / "photo.jpg")}])
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("an image was decoded"))
    assert header_sizes(rows) == [(30, 90), (80, 50), (400, 300)]


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    broken = [{"bytes": b"no image", "path": None}, {"bytes": None, "path": str(tmp_path / "lost.png")}, None]
    assert header_sizes(make_rows([*broken, {"bytes": encode(70, 60), "path": None}])) == [(70, 60)]
    assert header_sizes(make_rows(broken)) == []


def test_no_more_than_some_hundred_images_are_looked_at_evenly_spaced(monkeypatch):
    small, large = ({"bytes": encode(side, side), "path": None} for side in (32, 100))
    rows = make_rows([small] * 400 + [large] * 600)  # sorted by class
    opened = []
    original = PIL.Image.open
    monkeypatch.setattr("PIL.Image.open", lambda file: opened.append(1) or original(file))
    assert np.median(header_sizes(rows)) == 100
    assert len(opened) == 300


def split_of(images):
    return ImageSplit(images=images, labels=np.zeros(len(images), np.int64), index=np.arange(len(images)))


def statistics_of(images, **options):
    processor = build_model("cnn", labels=["a", "b"], options=find_family("cnn").recipe_options(**options))[1]
    return channel_statistics(ImageBatches(split_of(images), processor=processor))


def test_mean_and_standard_deviation_of_each_channel_are_exact(monkeypatch):
    images, _ = draw_images(70, classes=4)
    images[..., 2] //= 3
    found = statistics_of(images)
    pixels = images.reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(found[0], pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found[1], pixels.std(axis=0), rtol=1e-12)
    monkeypatch.setattr("hfprobe.data.pixels.image_statistics.COUNTED_AT_ONCE", 9)
    assert statistics_of(images[::-1].copy()) == found


def test_statistics_are_those_of_the_pixels_that_the_model_sees():
    images = np.zeros((5, 40, 60, 3), dtype=np.uint8)
    images[:, :, 12:48] = 200
    for options, columns in (({"image_size": 64}, 40), ({}, 60)):  # the centre; the whole image
        assert statistics_of(images, **options)[0] == pytest.approx([36 / columns * 200 / 255] * 3, abs=0.03)


def test_standard_deviation_of_one_colour_is_one_grey_level():
    assert statistics_of(np.full((3, 32, 32, 3), 255, dtype=np.uint8)) == ([1.0] * 3, [1 / 255] * 3)
