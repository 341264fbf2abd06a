import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from helpers.images import draw_images
from helpers.ranks import run_ranks
from hfprobe.data import cache
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.models import build_model, find_family
from hfprobe.models.base import PREPROCESSING, STATISTICS
from hfprobe.models.linear_probe import features
from hfprobe.models.linear_probe.features import View, extract_features
from hfprobe.models.linear_probe.finished_rows import RowWriter
from hfprobe.models.loading import load_model
from hfprobe.system import ranks
from hfprobe.system.errors import InputError, MachineError

COUNT = 50


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """A small random probe whose backbone calls are counted, with a feature cache of its own."""
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(features, "CPU_BATCH_SIZE", 16)
    torch.manual_seed(0)
    options = find_family("vit").recipe_options(backbone="test_byobnet", backbone_weights="random")
    model, processor = build_model("vit", labels=list("abcde"), options=options)
    model.calls = 0

    def count(*args):
        model.calls += 1

    model.backbone.register_forward_hook(count)
    return model, processor


@pytest.fixture(scope="module")
def split():
    images, labels = draw_images(COUNT, classes=5)
    return ImageSplit(images=images, labels=labels, index=np.arange(COUNT) * 2)


def batches(views=1):
    return -(-COUNT // 16) * views


@pytest.mark.parametrize("views", [1, 2, 3])
def test_backbone_is_called_once_per_batch_and_view(probe, split, views):
    model, processor = probe
    first = extract_features(model=model, processor=processor, split=split, views=range(views))
    assert model.calls == batches(views)
    assert first.features.shape == (views, COUNT, 256)
    again = extract_features(model=model, processor=processor, split=split, views=range(views))
    assert model.calls == batches(views)
    np.testing.assert_array_equal(again.features, first.features)
    # Fewer views are part of more.
    extract_features(model=model, processor=processor, split=split)
    assert model.calls == batches(views)


def test_features_equal_the_output_of_the_backbone(probe, split):
    model, processor = probe
    found = extract_features(model=model, processor=processor, split=split, views=range(2)).features
    pixels = processor(list(torch.from_numpy(split.images).permute(0, 3, 1, 2)), return_tensors="pt")["pixel_values"]
    for view, images in enumerate((pixels, pixels.flip(3))):
        np.testing.assert_allclose(found[view], model.extract_features(images), atol=1e-4)


@pytest.mark.parametrize(
    "part", ["weights", "preprocessing", "images", "rows", "view", "dtype", "timm", "torch", "precision"]
)
def test_change_of_any_part_of_the_cache_key_is_a_cache_miss(probe, split, part, monkeypatch):
    model, processor = probe

    def key(view=0, of=split, **precision):
        return features.cache_key(View(model, processor, of, number=view, seed=0, **precision))

    before = key()
    assert key() == before
    if part == "weights":
        next(model.backbone.parameters()).data.add_(1e-3)
        after = key()
    elif part == "preprocessing":
        processor.image_mean = [0.1, 0.2, 0.3]
        after = key()
    elif part == "images":
        changed = split.images.copy()
        changed[7, 0, 0, 0] ^= 1
        after = key(of=ImageSplit(images=changed, labels=split.labels, index=split.index))
    elif part == "rows":
        after = key(of=ImageSplit(images=split.images, labels=split.labels, index=split.index + 1))
    elif part == "view":
        after = key(view=1)
    elif part == "precision":
        assert key(precision="fp32") == before
        after = key(precision="bf16")
    elif part == "dtype":
        model.head.double()
        model.backbone.double()
        after = key()
    else:
        monkeypatch.setattr(features, "versions", lambda: {"timm": "1", "torch": "1"} | {part: "2"})
        other = key()
        monkeypatch.setattr(features, "versions", lambda: {"timm": "1", "torch": "1"})
        before, after = key(), other
    assert after != before


def test_cache_key_is_that_of_the_stored_features_unless_a_head_is_searched(probe, split, monkeypatch):
    model, processor = probe
    monkeypatch.setattr(features, "versions", lambda: {"timm": "1", "torch": "1"})
    parts = {
        "backbone": model.config.backbone,
        "weights": model.frozen_sha256(),
        "preprocessing": {name: processor.to_dict().get(name) for name in PREPROCESSING + STATISTICS},
        "view": [0, None],
        "dtype": "torch.float32",
        "timm": "1",
        "torch": "1",
        "precision": "fp32",
    }
    view = View(model, processor, split, number=0, seed=0)
    folder = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
    assert features.cache_key(view) == f"{folder}/{split.fingerprint[:32]}"
    model.config.second_pooling = "max"
    assert features.cache_key(view) != f"{folder}/{split.fingerprint[:32]}"


def test_features_in_bfloat16_are_kept_apart_as_float32(probe, split):
    model, processor = probe
    exact = extract_features(model=model, processor=processor, split=split).features
    rounded = extract_features(model=model, processor=processor, split=split, precision="bf16").features
    assert model.calls == 2 * batches()
    assert rounded.dtype == exact.dtype == np.float32
    difference = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 0 < difference < 0.03
    again = extract_features(model=model, processor=processor, split=split, precision="bf16").features
    np.testing.assert_array_equal(again, rounded)
    assert model.calls == 2 * batches()


def test_only_training_images_are_extracted_in_bfloat16(probe, split, monkeypatch):
    model, processor = probe
    seen = []
    model.backbone.register_forward_hook(lambda *args: seen.append(torch.is_autocast_enabled("cpu")))
    options = find_family("vit").recipe_options(
        backbone="test_byobnet", backbone_weights="random", feature_precision="bf16"
    )
    how = {"options": options, "name": "images"}
    find_family("vit").inputs(model, processor, split, train=True, **how)
    assert set(seen) == {True}
    seen.clear()
    find_family("vit").inputs(model, processor, split, **how)
    find_family("vit").inputs(model, processor, split, name="images", mirror=True)
    assert set(seen) == {False}


def test_seed_changes_random_views_only(probe, split):
    model, processor = probe

    def key(view, seed):
        return features.cache_key(View(model, processor, split, number=view, seed=seed))

    assert [key(view, 0) == key(view, 1) for view in (0, 1, 2)] == [True, True, False]


def test_interrupted_extraction_continues_where_it_stopped(probe, split):
    model, processor = probe
    expected = extract_features(model=model, processor=processor, split=split).features.copy()
    shutil.rmtree(cache.cache_folder() / "features")
    model.calls = 0
    whole = model.extract_features

    def stop_after_two(pixels):
        if model.calls == 2:
            raise KeyboardInterrupt
        return whole(pixels)

    model.extract_features = stop_after_two
    with pytest.raises(KeyboardInterrupt):
        extract_features(model=model, processor=processor, split=split)
    model.extract_features = whole
    found = extract_features(model=model, processor=processor, split=split).features
    assert model.calls == batches()  # two before, the others after
    np.testing.assert_array_equal(found, expected)


def test_full_disk_is_reported_before_any_image_is_computed_and_the_next_call_continues(probe, split, monkeypatch):
    model, processor = probe

    def full(descriptor, start, size):
        assert size == 128 + 4 * len(split) * model.config.feature_size  # all that will be written
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(MachineError, match=r"No space left on device\. Free some space, or set HF_HOME"):
            extract_features(model=model, processor=processor, split=split)
    assert model.calls == 0
    assert not [path for path in (cache.cache_folder() / "features").rglob("*") if path.is_file()]
    extract_features(model=model, processor=processor, split=split)
    assert model.calls == batches()


@pytest.mark.parametrize("damage", ["cut", "changed", "no sums"])
def test_damaged_cache_is_computed_again(probe, split, damage):
    model, processor = probe
    expected = extract_features(model=model, processor=processor, split=split).features.copy()
    (kept,) = (path for path in (cache.cache_folder() / "features").rglob("*.npy") if ".digests" not in path.name)
    content = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[-5] ^= 1
        kept.write_bytes(content)
    else:
        kept.with_suffix(".json").unlink()
    found = extract_features(model=model, processor=processor, split=split).features
    assert model.calls == 2 * batches()
    np.testing.assert_array_equal(found, expected)


def test_extraction_time_is_kept_in_the_cache(probe, split):
    model, processor = probe
    extract = partial(extract_features, model=model, processor=processor, split=split, views=range(2))
    made, kept = extract().seconds, extract().seconds
    assert made == kept > 0


def test_images_of_other_splits_are_not_computed_again_and_have_the_same_features_to_the_bit(probe, split):
    model, processor = probe
    whole = extract_features(model=model, processor=processor, split=split)
    model.calls = 0
    moved = split.take(np.arange(len(split))[::-2])
    relabelled = replace(moved, labels=1 - moved.labels)
    found = extract_features(model=model, processor=processor, split=relabelled)
    assert model.calls == 0
    np.testing.assert_array_equal(found.features, whole.features[:, ::-2])
    assert found.seconds == pytest.approx(whole.seconds * len(moved) / len(split), rel=0.5, abs=0.2)


def test_a_new_image_is_the_only_one_that_is_computed(probe, split):
    model, processor = probe
    most = split.take(np.arange(len(split) - 1))
    before = extract_features(model=model, processor=processor, split=most).features.copy()
    model.calls = 0
    after = extract_features(model=model, processor=processor, split=split).features
    assert model.calls == 1
    np.testing.assert_array_equal(after[:, :-1], before)
    shutil.rmtree(cache.cache_folder() / "features")
    np.testing.assert_array_equal(extract_features(model=model, processor=processor, split=split).features, after)


def test_random_crops_are_taken_from_other_splits_only_with_the_same_row_numbers(probe, split):
    model, processor = probe
    whole = extract_features(model=model, processor=processor, split=split, views=[2])
    model.calls = 0
    turned = split.take(np.arange(len(split))[::-1])
    found = extract_features(model=model, processor=processor, split=turned, views=[2])
    assert model.calls == 0
    np.testing.assert_array_equal(found.features, whole.features[:, ::-1])
    extract_features(model=model, processor=processor, split=replace(split, index=split.index + 1000), views=[2])
    assert model.calls == batches()


@pytest.mark.parametrize("name", ["npy", "digests.npy"])
def test_a_damaged_file_of_another_split_is_not_used(probe, split, name):
    model, processor = probe
    extract_features(model=model, processor=processor, split=split)
    (kept,) = (
        path for path in (cache.cache_folder() / "features").rglob("*.npy") if path.name.partition(".")[2] == name
    )
    kept.write_bytes(kept.read_bytes()[:-1])
    model.calls = 0
    extract_features(model=model, processor=processor, split=split.take(np.arange(10)))
    assert model.calls == 1


def test_a_published_model_finds_the_features_of_its_training(probe, split, tmp_path):
    model, processor = probe
    before = extract_features(model=model, processor=processor, split=split).features.copy()
    model.config.register_for_auto_class()
    processor.register_for_auto_class("AutoImageProcessor")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "published")
    loaded, its_processor = load_model(tmp_path / "published")
    loaded.extract_features = None
    found = extract_features(model=loaded, processor=its_processor, split=split).features
    np.testing.assert_array_equal(found, before)


@pytest.fixture
def written(monkeypatch):
    """The positions of the rows that are computed, of all ranks in no order."""
    positions, write = [], RowWriter.write

    def note(self, rows, features):
        positions.extend(rows.tolist())
        write(self, rows, features)

    monkeypatch.setattr(RowWriter, "write", note)
    return positions


def cached_files(folder):
    """Path in the cache -> content, of features and of digests."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


@pytest.mark.parametrize("processes", [2, 3, 9])
def test_features_and_their_place_in_the_cache_do_not_depend_on_the_number_of_processes(
    probe, split, processes, written, tmp_path, monkeypatch
):
    model, processor = probe
    extract = partial(extract_features, model=model, processor=processor, split=split, views=range(3))
    alone = extract()
    expected = cached_files(tmp_path / "cache")
    written.clear()
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache of several")
    found = run_ranks(processes, lambda rank: extract())
    for one in found:
        np.testing.assert_array_equal(one.features, alone.features)
        assert one.seconds == found[0].seconds > 0
    assert cached_files(tmp_path / "cache of several") == expected
    assert sorted(written) == sorted(3 * list(range(COUNT)))
    assert not [path for path in (tmp_path / "cache of several").rglob("*") if path.suffix not in ("", ".npy", ".json")]


@pytest.mark.parametrize("processes", [1, 3])
def test_an_extraction_of_two_processes_is_continued_by_another_number_of_them(
    probe, split, processes, written, tmp_path, monkeypatch
):
    model, processor = probe
    extract = partial(extract_features, model=model, processor=processor, split=split)
    extract()
    expected = cached_files(tmp_path / "cache")
    written.clear()
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "another cache")
    compute = features._compute

    def stop(view, batches, positions, **size):
        if 40 in positions:  # in the second batch of the second process
            raise KeyboardInterrupt
        return compute(view, batches, positions, **size)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_compute", stop)
        stopped = run_ranks(2, lambda rank: extract())
    assert list(map(type, stopped)) == [MachineError, KeyboardInterrupt]
    assert sorted(written) == list(range(32))
    if processes == 1:
        extract()
    else:
        run_ranks(processes, lambda rank: extract())
    assert cached_files(tmp_path / "another cache") == expected
    assert sorted(written) == list(range(COUNT))


def test_full_disk_of_one_process_ends_all_and_the_next_call_continues(probe, split, written, monkeypatch):
    model, processor = probe
    extract = partial(extract_features, model=model, processor=processor, split=split)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(features, "_compute", full)
        found = run_ranks(2, lambda rank: extract())
    assert [type(error) for error in found] == [MachineError, MachineError]
    assert "Cannot keep features in" in str(found[0])
    assert run_ranks(2, lambda rank: extract())[0].features.shape == (1, COUNT, 256)
    assert sorted(written) == list(range(COUNT))


def test_a_folder_that_is_not_shared_is_refused_and_nothing_is_published(probe, split, written, tmp_path, monkeypatch):
    model, processor = probe
    fill = features._fill

    def elsewhere(part, view, before, **name):
        """Another machine has a folder of this name too, with a file of an earlier run."""
        if ranks.rank_and_count()[0] == 1:
            part = part.with_name("elsewhere.part")
            np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(COUNT, 256))
        return fill(part, view, before, **name)

    extract = partial(extract_features, model=model, processor=processor, split=split)
    with monkeypatch.context() as patch:
        patch.setattr(features, "_fill", elsewhere)
        found = run_ranks(2, lambda rank: extract())
    assert [type(error) for error in found] == [InputError, InputError]
    assert re.search(r"All processes need the same folder: set HF_\w+ .*to one on a file system that", str(found[0]))
    assert not cached_files(tmp_path / "cache")
    written.clear()
    extract()
    assert sorted(written) == list(range(COUNT))


def test_a_process_with_other_images_is_refused_before_anything_is_written(probe, split, tmp_path):
    model, processor = probe
    found = run_ranks(
        2,
        lambda rank: extract_features(
            model=model, processor=processor, split=replace(split, index=split.index + rank), views=[2]
        ),
    )
    assert [type(error) for error in found] == [InputError, InputError]
    assert "Process 1 of 2 has other images, backbone weights or libraries than process 0" in str(found[0])
    assert not (tmp_path / "cache").exists()
