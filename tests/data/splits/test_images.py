import re

import datasets
import numpy as np
import pytest

from helpers.images import CLASSES, load_splits, make_dataset
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.classes import keep_classes
from hfprobe.data.splits.drawing import draw_part, stratified_subset
from hfprobe.system.errors import InputError


def labelled(labels, names="abcde"):
    features = datasets.Features(image=datasets.Value("int64"), label=datasets.ClassLabel(names=list(names)))
    return datasets.Dataset.from_dict({"image": np.arange(len(labels)), "label": labels}, features=features)


def column(rows, name):
    return np.asarray(rows.with_format("numpy")[name][:])


def test_classes_are_renumbered_in_the_requested_order_and_the_mapping_inverts():
    labels = np.random.default_rng(0).integers(0, 5, 100)
    kept = keep_classes(labelled(labels), classes=["d", "a"], split="train")
    assert kept.features["label"].names == ["d", "a"]
    original = np.array([3, 0])[column(kept, "label")]
    np.testing.assert_array_equal(original, labels[column(kept, "index")])
    np.testing.assert_array_equal(column(kept, "image"), column(kept, "index"))
    assert len(kept) == np.isin(labels, [0, 3]).sum()


def test_rows_without_a_label_are_dropped():
    assert len(keep_classes(labelled([0, -1, 1]), classes=["a", "b"], split="train")) == 2


def test_split_is_stratified_disjoint_complete_and_seeded():
    rows = keep_classes(labelled(np.arange(1000) % 5), classes=list("abcde"), split="train")
    train, validation = (rows.select(part) for part in draw_part(rows, seed=42))
    assert np.bincount(column(train, "label")).tolist() == [160] * 5
    assert np.bincount(column(validation, "label")).tolist() == [40] * 5
    indices = np.concatenate([column(train, "index"), column(validation, "index")])
    assert sorted(indices) == list(range(1000))
    again, _ = (rows.select(part) for part in draw_part(rows, seed=42))
    other, _ = (rows.select(part) for part in draw_part(rows, seed=43))
    np.testing.assert_array_equal(column(again, "index"), column(train, "index"))
    assert (column(other, "index") != column(train, "index")).any()


@pytest.mark.parametrize("size", [3, 7, 23, 99, 100, 500])
def test_subset_is_stratified_and_part_of_every_larger_one(size):
    labels = np.repeat([0, 1, 2], [50, 30, 20])[np.random.default_rng(0).permutation(100)]
    kept = stratified_subset(labels, size=size, seed=1)
    assert len(kept) == len(set(kept)) == min(size, 100)
    share = min(size, 100) / 100
    assert np.abs(np.bincount(labels[kept], minlength=3) - share * np.array([50, 30, 20])).max() <= 1
    assert set(kept) <= set(stratified_subset(labels, size=size + 1, seed=1))
    if size < 99:
        assert set(kept) != set(stratified_subset(labels, size=size, seed=2))


def test_splits_of_a_folder_have_the_expected_images(dataset_folder):
    splits = load_splits(
        DataArguments(dataset=str(dataset_folder), classes=["dog", "bird"], max_eval_samples=10), seed=0
    )
    assert splits.train.images.shape == (64, 32, 32, 3)
    assert np.bincount(splits.train.labels).tolist() == [32, 32]
    assert np.bincount(splits.validation.labels).tolist() == [5, 5]
    assert np.bincount(splits.test.labels).tolist() == [5, 5]
    # The decoded images belong to their labels: all dogs have the dog's colour in the middle.
    for part in (splits.train, splits.test):
        dogs, birds = (np.unique(part.images[part.labels == number, 16, 16], axis=0) for number in (0, 1))
        assert len(dogs) == len(birds) == 1
        assert (dogs != birds).any()


def test_fingerprint_depends_on_content_and_not_on_location(dataset_folder, tmp_path):
    make_dataset().save_to_disk(tmp_path / "copy")
    arguments = {"seed": 0}
    here = load_splits(DataArguments(dataset=str(dataset_folder)), **arguments).fingerprint
    assert load_splits(DataArguments(dataset=str(tmp_path / "copy")), **arguments).fingerprint == here
    fewer = DataArguments(dataset=str(dataset_folder), max_train_samples=50)
    assert load_splits(fewer, **arguments).fingerprint != here


def test_unknown_class_is_an_input_error(dataset_folder):
    data = DataArguments(dataset=str(dataset_folder), classes=["cat", "zebra"])
    expected = f"Unknown class 'zebra'. The dataset has: {', '.join(CLASSES)}. Choose with --classes."
    with pytest.raises(InputError, match=re.escape(expected)):
        load_splits(data, seed=0)


def test_class_without_training_images_is_refused():
    with pytest.raises(
        InputError, match=re.escape("Class e has no images in split 'train'. Leave it out of --classes.")
    ):
        keep_classes(labelled([0, 1, 2]), classes=["a", "e"], split="train")


@pytest.mark.parametrize("known", ["abcde", "abc"])
def test_test_split_without_a_class_is_allowed_with_a_warning(known, caplog):
    kept = keep_classes(labelled([0, 1, 2], names=known), classes=["a", "e"], split="test")
    assert column(kept, "label").tolist() == [0]
    assert "The test split has no images of class e: its row in reports is empty." in caplog.text


def test_subset_with_fewer_images_than_classes_is_refused():
    with pytest.raises(InputError, match=re.escape("3 images for 5 classes; allowed: at least one image per class.")):
        stratified_subset(np.arange(100) % 5, size=3, seed=0)
