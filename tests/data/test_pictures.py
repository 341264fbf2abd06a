"""Whatever a picture's kind, size, shape, orientation and depth: evaluated, published and piped, it is one picture."""

import re

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from transformers.image_utils import load_image

from helpers.picture_kinds import (
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
from hfprobe.data.pictures import read_picture
from hfprobe.models import build_model, find_family
from hfprobe.system.errors import InputError

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_image_mode_is_read_as_upright_rgb(kind, size):
    content, expected = KINDS[kind](*SIZES[size])
    expected = ramp(*SIZES[size]) if expected is None else expected
    image = read_picture(content).image
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
    (tmp_path / "picture").write_bytes(content)
    expected = np.asarray(load_image(str(tmp_path / "picture")))
    np.testing.assert_array_equal(np.asarray(read_picture(content).image), expected)


def test_unusual_conversions_of_values_are_logged():
    assert read_picture(KINDS["12 bits in a 16-bit PNG"](8, 8)[0]).note == (
        "16-bit files with values of at most 4,095 were read as 12-bit"
    )
    assert (
        read_picture(KINDS["float TIFF with its range"](8, 8)[0]).note == "Values from 0 to 1 were scaled to 0 to 255"
    )
    assert read_picture(KINDS["16-bit PNG"](8, 8)[0]).note is None


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
