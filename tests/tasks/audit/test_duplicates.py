from dataclasses import replace
from io import BytesIO

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from helpers.audited import draw_textures
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.tasks.audit.duplicates import (
    LEAST_COSINE,
    LEAST_DETAIL,
    compare_pixels,
    find_candidates,
    find_exact,
    find_near,
    join,
    make_grey,
)

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


def test_candidates_are_the_nearest_neighbours_without_repetitions():
    vectors = np.array([[1, 0], [1, 0.1], [-1, 0], [-1, 0.1], [0, 5]], dtype=np.float32)
    pairs = find_candidates(vectors, neighbours=1, least=0.5, what="features")
    assert pairs.tolist() == [[0, 1], [2, 3]]
    assert find_candidates(vectors[:1], neighbours=3, least=0.5, what="features").shape == (0, 2)


def test_small_pixels_propose_what_features_miss():
    originals = draw_textures(8, side=SIDE)
    grey = make_grey(split_of([*originals, originals[3]]))
    features = np.eye(9, dtype=np.float32)
    features[8, 3] = 0.5  # a cosine below LEAST_COSINE
    assert find_candidates(features, neighbours=4, least=LEAST_COSINE, what="features").shape == (0, 2)
    assert find_near(features, grey).pairs.tolist() == [[3, 8]]


def test_similar_outlines_of_different_features_are_no_duplicates():
    originals = draw_textures(8, side=SIDE)
    grey = make_grey(split_of([*originals, originals[3]]))
    features = np.eye(9, dtype=np.float32)
    features[8] = -features[3]
    assert find_near(features, grey).pairs.tolist() == []


def test_exact_duplicates_have_the_same_pixels_and_size():
    images = list(draw_textures(3))
    parts = [split_of([images[0], images[1]]), split_of([images[2], images[1], images[0]])]
    assert find_exact(parts, [(48, 48)] * 5).tolist() == [[0, 4], [1, 3]]
    # What is the same at the size of the model only, may have been two different images.
    digests = np.arange(16 * 5, dtype=np.uint8).reshape(-1, 16)
    fitted = [replace(part, digests=digests[first:][: len(part)]) for part, first in zip(parts, (0, 2), strict=True)]
    sizes = [(100, 80), (48, 48), (48, 48), (48, 48), (80, 100)]
    assert [1, 3] in find_exact(fitted, sizes).tolist()
    assert [0, 4] not in find_exact(fitted, sizes).tolist()


def test_pairs_join_to_groups():
    assert join(6, np.array([[4, 5], [1, 3], [3, 4]])).tolist() == [0, 1, 2, 1, 1, 1]
    assert join(2, np.empty((0, 2), dtype=np.int64)).tolist() == [0, 1]
