from io import BytesIO

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from helpers.audited import draw_textures
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.tasks.audit.alignment import compare_pixels, make_grey, measure_detail_share
from hfprobe.tasks.audit.duplicates import LEAST_DETAIL

SIDE = 96


def compress(image):
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=40)
    return PIL.Image.open(buffer)


CHANGES = {
    "shifted": lambda image: PIL.Image.fromarray(np.pad(np.asarray(image), ((6, 0), (0, 9), (0, 0)), "edge")[:96, 9:]),
    "mirrored": PIL.ImageOps.mirror,
    "rescaled": lambda image: image.resize((50, 50)).resize(image.size),
    "recompressed": compress,
    "recoloured": lambda image: PIL.Image.fromarray((np.asarray(image) * [0.9, 0.6, 0.7] + 20).astype(np.uint8)),
    "cropped": lambda image: image.crop((4, 10, 84, 90)).resize(image.size),
    "exact": lambda image: image,
}


def split_of(images):
    return ImageSplit(images=np.stack(images), labels=np.zeros(len(images), dtype=int), index=np.arange(len(images)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_near_its_original_and_to_no_other_image(change):
    originals = draw_textures(12, side=SIDE)
    copies = [np.asarray(CHANGES[change](PIL.Image.fromarray(image)).convert("RGB")) for image in originals]
    grey = make_grey(split_of([*originals, *copies]))
    everyone = np.array([(one, 12 + other) for one in range(12) for other in range(12)])
    lower = np.minimum(*compare_pixels(grey, everyone)).reshape(12, 12)
    assert lower.diagonal().min() > LEAST_DETAIL
    assert lower[~np.eye(12, dtype=bool)].max() < 0.6


def test_brightness_and_contrast_do_not_change_the_correlation():
    image = draw_textures(1, side=32)[0].astype(np.float32).mean(axis=-1)
    grey = np.stack([image, 0.5 * image + 60])
    assert np.minimum(*compare_pixels(grey, np.array([[0, 1]])))[0] == pytest.approx(1, abs=1e-3)


def test_images_of_one_colour_are_not_near_each_other():
    grey = np.stack([np.full((32, 32), value, dtype=np.float32) for value in (0, 100, 255)])
    assert np.minimum(*compare_pixels(grey, np.array([[0, 1], [1, 2]]))).max() < 0.1


def test_an_object_before_an_empty_background_has_a_small_share_of_detail():
    texture = draw_textures(1, side=32)[0].astype(np.float32).mean(axis=-1)
    small = np.full((32, 32), 200, dtype=np.float32)
    small[12:20, 12:20] = texture[12:20, 12:20]
    flat = np.full((32, 32), 200, dtype=np.float32)
    shares = measure_detail_share(np.stack([texture, small, 0.3 * small + 20, flat]))
    assert shares[0] > 0.5
    assert 0 < shares[1] < 0.25
    assert shares[2] == pytest.approx(shares[1], rel=1e-3)  # contrast has no effect
    assert 0 < shares[3] < 0.01
