"""Identical files in two splits or with two labels: which are found, what is said, and how few files are read."""

import datasets
import numpy as np
import pytest

from helpers.image_folders import write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits import duplicates
from hfprobe.data.splits.duplicates import SAMPLE_BYTES, find_identical
from hfprobe.data.splits.images import load_images


def embedded(contents, labels, *, names="ab"):
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=list(names)))
    rows = {"image": [{"bytes": content, "path": None} for content in contents], "label": labels}
    rows = datasets.Dataset.from_dict(rows, features=features)
    return rows.add_column("index", np.arange(len(labels)))


def loaded(place, **settings):
    return load_images(DataArguments(dataset=str(place), **settings), seed=0)


def make_links(folder):
    """Three kinds of copies of a training image in test: the bytes, a symbolic link, a hard link."""
    write_images(folder / "train", count=10)
    write_images(folder / "test", count=3, first=50)
    train, test = folder / "train" / "cat", folder / "test" / "cat"
    (test / "copy.png").write_bytes((train / "001.png").read_bytes())
    (test / "link.png").symlink_to(train / "002.png")
    (test / "hard.png").hardlink_to(train / "003.png")
    return folder


def test_identical_files_in_two_splits_are_named_logged_and_recorded(tmp_path, caplog):
    images = loaded(make_links(tmp_path))
    expected = (
        "Identical files in two splits: 3 of the 9 test images are also in train, so figures on test may be too high: "
        "test/cat/copy.png (test, cat) = train/cat/001.png (train, cat); test/cat/link.png (test, cat) = "
        "train/cat/002.png (train, cat); test/cat/hard.png (test, cat) = train/cat/003.png (train, cat). They are "
        "kept, because without them test would not be the split of the dataset."
    )
    assert images.identical == [expected]
    assert images.counts()["test"] == [6, 3]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert images.identical[0] in warnings


def test_identical_files_with_two_labels_are_named_in_one_split_and_in_two(tmp_path):
    write_images(tmp_path / "train", count=10)
    write_images(tmp_path / "test", count=3, first=50)
    for place in ("train/dog/x.png", "test/dog/y.png"):
        (tmp_path / place).write_bytes((tmp_path / "train" / "cat" / "004.png").read_bytes())
    assert loaded(tmp_path).identical == [
        "Identical files in two splits: 1 of the 7 test images are also in train, so figures on test may be too high: "
        "test/dog/y.png (test, dog) = train/cat/004.png (train, cat). They are kept, because without them test would "
        "not be the split of the dataset.",
        "Identical files with different labels (1): train/cat/004.png (train, cat) = train/dog/x.png (train, dog).",
    ]


def test_an_image_that_is_twice_in_one_class_of_one_split_is_no_finding(tmp_path):
    photos = write_images(tmp_path, count=10)
    (photos / "cat" / "copy.png").write_bytes((photos / "cat" / "004.png").read_bytes())
    assert loaded(photos).identical == []
    (photos / "dog" / "copy.png").write_bytes((photos / "cat" / "004.png").read_bytes())
    assert loaded(photos).identical == [
        "Identical files with different labels (1): cat/004.png (train, cat) = dog/copy.png (train, dog)."
    ]


def test_embedded_images_of_selected_rows_and_of_several_chunks_are_compared():
    generator = np.random.default_rng(0)
    contents = [generator.bytes(100 if number % 3 else 20_000) for number in range(60)]
    whole = datasets.concatenate_datasets([embedded(contents[:30], [0, 1] * 15), embedded(contents[30:], [0, 1] * 15)])
    kept = {"train": whole.select([*range(0, 60, 2)]), "test": whole.select([59, 4, 3, 30]), "part": whole.select([1])}
    assert find_identical(kept) == [[("train", 2), ("test", 1)], [("train", 15), ("test", 3)]]
    assert find_identical({"train": whole.select(range(10, 20)), "test": whole.select(range(19, 25))}) == [
        [("train", 9), ("test", 0)]
    ]


def test_files_of_one_size_are_told_apart_by_all_their_bytes():
    one = bytes(100_000)
    other = one[:-1] + b"\1"
    assert find_identical({"train": embedded([one], [0]), "test": embedded([other], [0])}) == []
    assert find_identical({"train": embedded([one], [0]), "test": embedded([other, one], [0, 0])}) == [
        [("train", 0), ("test", 1)]
    ]


def test_images_without_a_file_and_files_that_cannot_be_read_are_passed_over(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x" * 10)
    paths = [str(tmp_path / "x.png"), str(tmp_path / "gone.png"), str(tmp_path), None, "a\0b"]
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=["a", "b"]))
    content = {"image": [path and {"bytes": None, "path": path} for path in paths], "label": [0] * 5}
    rows = datasets.Dataset.from_dict(content, features=features)
    assert find_identical({"train": rows, "test": rows}) == [[("train", 0), ("test", 0)]]
    empty = embedded([b"", b""], [0, 1])
    assert find_identical({"train": empty, "test": empty}) == []


@pytest.mark.parametrize("size", [50, 3 * SAMPLE_BYTES])
def test_files_are_read_only_where_another_one_has_their_size(tmp_path, monkeypatch, size):
    write_images(tmp_path / "train", count=10)
    write_images(tmp_path / "test", count=10, first=50)
    for number, file in enumerate(sorted(tmp_path.rglob("*.png"))):
        file.write_bytes(np.random.default_rng(number).bytes(size + number))
    for file in ("train/cat/001.png", "test/dog/051.png"):
        (tmp_path / file).write_bytes(bytes(size + 100))
    opened = []

    def read(path, mode):
        opened.append(path)
        return open(path, mode)

    monkeypatch.setattr(duplicates, "open", read, raising=False)
    assert len(loaded(tmp_path).identical) == 2
    assert {path.rpartition(f"{tmp_path}/")[2] for path in opened} == {"train/cat/001.png", "test/dog/051.png"}


def test_many_identical_files_are_counted_and_five_are_named(tmp_path):
    write_images(tmp_path / "train", count=10)
    write_images(tmp_path / "test", count=10)
    sentence = loaded(tmp_path).identical[0]
    assert sentence.startswith("Identical files in two splits: 20 of the 20 test images are also in train")
    assert sentence.count(" = ") == 5
    assert "; and 15 more. They are kept" in sentence
