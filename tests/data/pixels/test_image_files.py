"""Whatever an image's kind, size, shape, orientation and depth: evaluated, published and piped, it is one image."""

import re
import threading
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from transformers.image_utils import load_image

from helpers.image_kinds import (
    CLASSES,
    KINDS,
    SIZES,
    decode_test,
    encode,
    grey,
    ramp,
    tiff,
    write_folder,
)
from hfprobe.data.pixels.image_files import MAX_PIXELS, check_header, pixel_limit, read_image
from hfprobe.models import build_model, find_family
from hfprobe.system.errors import InputError

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_image_mode_is_read_as_upright_rgb(kind, size):
    content, expected = KINDS[kind](*SIZES[size])
    expected = ramp(*SIZES[size]) if expected is None else expected
    image = read_image(content).image
    assert image.mode == "RGB"
    assert image.size == SIZES[size]
    for channel in range(3):
        difference = np.abs(np.asarray(image)[:, :, channel] - expected)
        assert np.median(difference) <= 1.5
        assert difference.max() <= (2 if "JPEG" not in kind else 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_that_of_transformers(orientation, kind, tmp_path):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    content = encode(grey(40, 24).convert("RGB"), kind, exif=exif)
    (tmp_path / "image").write_bytes(content)
    expected = np.asarray(load_image(str(tmp_path / "image")))
    np.testing.assert_array_equal(np.asarray(read_image(content).image), expected)


def test_unusual_conversions_of_values_are_logged():
    assert read_image(KINDS["12 bits in a 16-bit PNG"](8, 8)[0]).note == (
        "16-bit files with values of at most 4,095 were read as 12-bit"
    )
    assert read_image(KINDS["float TIFF with its range"](8, 8)[0]).note == "Values from 0 to 1 were scaled to 0 to 255"
    assert read_image(KINDS["16-bit PNG"](8, 8)[0]).note is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: tiff(ramp(8, 8, top=1).astype("f4")), "it holds floating-point values and does not state their range"),
        (lambda: tiff(ramp(8, 8).astype("i4")), "it holds 32-bit integer values and does not state their range"),
        (lambda: tiff(np.full((8, 8), np.nan, "f4"), _340=0.0, _341=1.0), "it holds NaN or infinite values"),
    ],
)
def test_error_for_values_without_a_range_names_the_image(content, reason, tmp_path):
    folder = write_folder(tmp_path / "photos", {"odd": content()})
    with pytest.raises(InputError, match=f"{re.escape(str(folder))}.*cannot be read: {re.escape(reason)}"):
        decode_test(
            folder, processor=build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())[1]
        )


def test_what_the_header_shows_is_refused_without_decoding(tmp_path, monkeypatch):
    contents = {
        "it has 625,000,000 pixels; allowed: at most 178,956,970 (--max_pixels sets it)": large(25_000),
        "it has 10,000 pixels; allowed: at most 1,000 (--max_pixels sets it)": encode(grey(100, 100), "PNG"),
        "the file is empty": b"",
        "cannot identify image file": b"no image",
        "it is EPS, which Pillow reads by running another program; export it as PNG": encode(grey(8, 8), "EPS"),
        "it holds floating-point values and does not state their range": tiff(ramp(8, 8, top=1).astype("f4")),
    }
    good = [KINDS[kind](8, 8)[0] for kind in KINDS]
    limits = {reason: 1000 if "1,000" in reason else MAX_PIXELS for reason in contents}
    for reason, content in contents.items():
        with pytest.raises((ValueError, PIL.UnidentifiedImageError), match=re.escape(reason)):
            read_image(content, max_pixels=limits[reason])
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("an image was decoded"))
    file = tmp_path / "image"
    for reason, content in contents.items():
        file.write_bytes(content)
        for source in (content, file):
            with pytest.raises((ValueError, PIL.UnidentifiedImageError), match=re.escape(reason)):
                check_header(source, max_pixels=limits[reason])
    for content in good:
        check_header(content)


def large(side):
    """A black PNG of few bytes, with a header that says `side` x `side` pixels; its pixels cannot be decoded."""
    content = bytearray(encode(PIL.Image.new("1", (1, 1)), "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_the_limit_is_raised_for_all_threads_restored_at_the_end_and_warnings_stay_away():
    before = PIL.Image.MAX_IMAGE_PIXELS
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with pixel_limit(2 * 10**9):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pixel_limit(10**9):
            check_header(large(25_000), max_pixels=10**9)  # 625 megapixels
            with pytest.raises(ValueError, match="it has 1,600,000,000 pixels"):
                check_header(large(40_000), max_pixels=10**9)  # although another thread may
            leave.set()
            thread.join()
            assert PIL.Image.MAX_IMAGE_PIXELS == 5 * 10**8
    assert before == PIL.Image.MAX_IMAGE_PIXELS
    assert not caught


@pytest.mark.parametrize("own", [None, 50, 10**12])
def test_the_limit_of_a_program_is_as_before_afterwards(own, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", own)
    with pixel_limit(MAX_PIXELS):
        assert read_image(encode(grey(100, 100), "PNG")).image.size == (100, 100)
        with pytest.raises(ValueError, match="it has 625,000,000 pixels; allowed: at most 178,956,970"):
            check_header(large(25_000))
    assert own == PIL.Image.MAX_IMAGE_PIXELS
