from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from helpers.audited import draw_textures
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.tasks.audit import duplicates
from hfprobe.tasks.audit.alignment import make_grey
from hfprobe.tasks.audit.duplicates import LEAST_COSINE, find_candidates, find_exact, find_near, join

SIDE = 96
NO_PAIRS = np.empty((0, 2), dtype=np.int64)


def split_of(images):
    return ImageSplit(images=np.stack(images), labels=np.zeros(len(images), dtype=int), index=np.arange(len(images)))


def grey_of(images):
    return make_grey(split_of(images))


def groups_of(found):
    """The groups of two and more images, as lists of positions."""
    numbers, counts = np.unique(found.owners, return_counts=True)
    return [np.flatnonzero(found.owners == number).tolist() for number in numbers[counts > 1]]


def test_candidates_are_the_nearest_neighbours_without_repetitions():
    vectors = np.array([[1, 0], [1, 0.1], [-1, 0], [-1, 0.1], [0, 5]], dtype=np.float32)
    pairs, _ = find_candidates(vectors, neighbours=1, least=0.5, what="features")
    assert pairs.tolist() == [[0, 1], [2, 3]]
    assert find_candidates(vectors[:1], neighbours=3, least=0.5, what="features")[0].shape == (0, 2)


def test_crowding_is_the_cosine_of_the_eighth_nearest_image():
    angles = np.r_[np.linspace(0, 0.16, 9), np.pi + np.linspace(0, 0.16, 9)]  # two crowds of nine, opposite each other
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    _, crowding = find_candidates(vectors, neighbours=2, least=0.5, what="features")
    assert crowding[[0, 4]] == pytest.approx(np.cos([0.16, 0.08]), abs=1e-5)
    _, crowding = find_candidates(vectors[[0, 9]], neighbours=2, least=0.5, what="features")
    assert crowding.tolist() == [0, 0]  # the only other image is opposite


def test_small_pixels_propose_what_features_miss():
    originals = draw_textures(8, side=SIDE)
    grey = grey_of([*originals, originals[3]])
    features = np.eye(9, dtype=np.float32)
    features[8, 3] = 0.5  # a cosine below LEAST_COSINE
    assert find_candidates(features, neighbours=4, least=LEAST_COSINE, what="features")[0].shape == (0, 2)
    found = find_near(features, grey, NO_PAIRS)
    assert found.pairs.tolist() == [[3, 8]]
    assert groups_of(found) == [[3, 8]]


def test_a_copy_with_many_details_is_found_whatever_its_features_are():
    originals = draw_textures(8, side=SIDE)
    grey = grey_of([*originals, originals[3]])
    features = np.eye(9, dtype=np.float32)
    features[8] = -features[3]
    assert groups_of(find_near(features, grey, NO_PAIRS)) == [[3, 8]]


def test_small_objects_before_an_empty_background_must_stand_out_by_their_features():
    textures = draw_textures(30, side=32)
    objects = np.full((31, 32, 32, 3), 220, dtype=np.uint8)
    objects[:30, 10:20, 6:26] = textures[:, 10:20, 6:26]
    objects[30, 10:20, 6:26] = (0.9 * objects[3].astype(float) + 0.1 * objects[4])[10:20, 6:26]
    alone = np.eye(31, dtype=np.float32)
    alone[30] = alone[3]
    assert groups_of(find_near(alone, grey_of(list(objects)), NO_PAIRS)) == [[3, 30]]
    crowd = alone.copy()
    crowd[5:15] = crowd[3]
    assert groups_of(find_near(crowd, grey_of(list(objects)), NO_PAIRS)) == []


def test_a_chain_of_drifting_views_is_no_group():
    wide = np.concatenate(draw_textures(2, side=SIDE), axis=1)
    views = [wide[:, start : start + SIDE] for start in (0, 20, 40)]  # the ends overlap too little to be aligned
    others = draw_textures(20, side=SIDE, seed=1)
    features = np.eye(23, dtype=np.float32)
    features[1] = features[0] + features[2]
    found = find_near(features, grey_of([*views, *others]), NO_PAIRS)
    assert len(groups_of(found)) == 1
    assert len(groups_of(found)[0]) == 2
    assert len(found.pairs) == 1  # the pair that does not join is not listed


def test_copies_with_different_changes_are_one_group():
    originals = draw_textures(20, side=SIDE)
    image = PIL.Image.fromarray(originals[4])
    copies = [
        np.asarray(image.crop((0, 0, 84, 84)).resize(image.size)),
        np.asarray(image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)),
        (originals[4] * [0.6, 0.9, 0.7] + 30).astype(np.uint8),
    ]
    features = np.concatenate([np.eye(20), np.repeat(np.eye(20)[4:5], 3, axis=0)]).astype(np.float32)
    found = find_near(features, grey_of([*originals, *copies]), NO_PAIRS)
    assert groups_of(found) == [[4, 20, 21, 22]]
    assert found.similarities.min() > 0.7


def test_images_that_no_pair_joins_are_no_group(monkeypatch):
    originals = draw_textures(10, side=SIDE)
    features = np.eye(11, dtype=np.float32)
    features[10] = features[3]
    grey = grey_of([*originals, originals[3]])
    # As if 10 were linked to 3, and 1 to 0 because of an image that is in another group now.
    linked = np.array([0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 3])
    monkeypatch.setattr(duplicates, "_link", lambda *_: linked)
    assert groups_of(find_near(features, grey, NO_PAIRS)) == [[3, 10]]


def test_exact_duplicates_stay_together_whatever_the_features_say():
    originals = draw_textures(10, side=SIDE)
    features = np.eye(11, dtype=np.float32)
    features[10] = -features[0]
    found = find_near(features, grey_of([*originals, originals[0]]), np.array([[0, 10]]))
    assert groups_of(found) == [[0, 10]]
    assert found.pairs.shape == (0, 2)


def test_more_evidence_is_required_where_all_images_look_alike(monkeypatch):
    required = []
    original = duplicates._Comparison.required
    monkeypatch.setattr(
        duplicates._Comparison, "required", lambda self: required.append(original(self)) or required[-1]
    )
    textures = draw_textures(16, side=32)
    alike = [
        (0.8 * textures[number % 2].astype(float) + 0.2 * image).astype(np.uint8)
        for number, image in enumerate(textures)
    ]
    for images in (textures, alike):
        find_near(np.eye(16, dtype=np.float32), grey_of(images), NO_PAIRS)
    assert required == [duplicates.LEAST_EVIDENCE, duplicates.MOST_REQUIRED]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_images_have_no_duplicates(count):
    grey = grey_of(draw_textures(count, side=32))
    assert groups_of(find_near(np.eye(count, 5, dtype=np.float32), grey, NO_PAIRS)) == []


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
    # Pairs join in their order, as long as a group is not too large.
    assert join(5, np.array([[3, 4], [0, 1], [1, 2], [2, 3]]), most=3).tolist() == [0, 0, 0, 3, 3]
