"""Each layout that a dataset on disk can have, and what is said of one that cannot be used."""

import re

import datasets
import pytest

from helpers.image_folders import NAMES, check_drawn, draw, load, numbers, write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError


def test_one_folder_per_class_is_divided_into_train_validation_and_test(tmp_path):
    splits = load(write_images(tmp_path / "photos", count=25))
    assert splits.class_names == NAMES
    check_drawn(splits, count=25)
    assert splits.summary.division == (
        "The dataset has no test and no validation split: its images are divided into 64 % train, 16 % validation and "
        "20 % test, stratified by class, with seed 0."
    )


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "Validation", "test"),
        ("train", "dev", "Testing"),
    ],
)
def test_split_folders_of_every_usual_name_are_used(tmp_path, train, validation, test):
    for first, name in ((0, train), (50, validation), (100, test)):
        write_images(tmp_path / name, first=first, count=5)
    splits = load(tmp_path)
    assert numbers(splits.train) == {0, 1, 2, 3, 4}
    assert numbers(splits.validation) == {50, 51, 52, 53, 54}
    assert numbers(splits.test) == {100, 101, 102, 103, 104}
    assert splits.summary.division == "The train and validation and test images are those of the dataset."


def test_a_missing_test_split_is_drawn_from_train_and_validation_stays(tmp_path):
    write_images(tmp_path / "train", count=10)
    write_images(tmp_path / "val", count=5, first=50)
    splits = load(tmp_path)
    assert numbers(splits.validation) == {50, 51, 52, 53, 54}
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert "The test images are 20 % of the training images" in splits.summary.division


def test_a_training_folder_alone_is_divided(tmp_path):
    write_images(tmp_path / "train", count=25)
    check_drawn(load(tmp_path), count=25)


def test_flags_name_splits_of_other_names(tmp_path):
    for first, name in ((0, "lab"), (50, "field"), (100, "old")):
        write_images(tmp_path / name, first=first, count=5)
    splits = load(tmp_path, train_split="lab", test_split="field")
    assert len(splits.train) == 8
    assert numbers(splits.test) == {50, 51, 52, 53, 54}
    with pytest.raises(InputError, match=re.escape("--test_split is 'filed', and dataset")):
        load(tmp_path, train_split="lab", test_split="filed")


def test_nested_folders_belong_to_the_class_below_the_split(tmp_path):
    write_images(tmp_path / "photos", count=10)
    (tmp_path / "photos" / "dog" / "val" / "spring").mkdir(parents=True)
    draw(99, 1).save(tmp_path / "photos" / "dog" / "val" / "spring" / "x.jpg", quality=100)
    splits = load(tmp_path / "photos")
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 21


def test_class_folders_that_are_links_are_followed(tmp_path):
    write_images(tmp_path / "photos", count=10)
    (tmp_path / "photos" / "dog").rename(tmp_path / "elsewhere")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    check_drawn(load(tmp_path / "photos", max_train_samples=10**6), count=10)


def test_save_to_disk_of_one_dataset_is_divided(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    rows = {"image": [draw(number, label) for label in (0, 1) for number in range(25)], "label": [0] * 25 + [1] * 25}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    check_drawn(load(tmp_path / "saved"), count=25)


def test_what_is_left_out_is_named_with_its_reason_and_remedy(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("hfprobe.data.sources.file_kinds.readable_endings", lambda: {".png"})
    photos = write_images(tmp_path / "photos", count=25)
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/c.avif", "dog/d.nef", "dog/notes.txt", "dog/._x.png", "dog/e.svg"):
        (photos / name).write_bytes(b"x")
    (photos / "empty").mkdir()
    draw(1, 1).save(photos / "loose.png")
    splits = load(photos)
    assert splits.summary.left_out == {
        "HEIC cannot be read without pillow-heif (pip install 'hfprobe[heic]')": ["cat/a.heic", "cat/b.HEIC"],
        "this version of Pillow cannot read AVIF (pip install --upgrade pillow)": ["dog/c.avif"],
        "raw files of a camera cannot be read (export them as JPEG or PNG)": ["dog/d.nef"],
        "not an image": ["dog/notes.txt"],
        "cannot be read as an image (export it as JPEG or PNG)": ["dog/e.svg"],
        "folder without images": ["empty"],
        "in no class folder": ["loose.png"],
    }
    caplog.set_level("INFO")
    load_images(DataArguments(dataset=str(photos)), seed=0)
    assert (
        "  Left out (2), HEIC cannot be read without pillow-heif (pip install 'hfprobe[heic]'): cat/a.heic"
        in caplog.text
    )
    assert f"Images: local folder {photos}\n  train           32  cat 16, dog 16\n" in caplog.text


def test_a_test_folder_without_labels_is_left_out_and_a_test_split_is_drawn(tmp_path):
    write_images(tmp_path / "train", count=25)
    (tmp_path / "test").mkdir()
    draw(1, 1).save(tmp_path / "test" / "1.png")
    splits = load(tmp_path)
    check_drawn(splits, count=25)
    assert splits.summary.left_out == {"split without labels": ["test"]}


def test_a_test_split_without_labels_is_left_out(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    rows = {"image": [draw(number, label) for label in (0, 1) for number in range(25)], "label": [0] * 25 + [1] * 25}
    train = datasets.Dataset.from_dict(rows, features=features)
    test = datasets.Dataset.from_dict(rows | {"label": [-1] * 50}, features=features)
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "saved")
    splits = load(tmp_path / "saved")
    check_drawn(splits, count=25)
    assert splits.summary.left_out == {"split without labels": ["test (50 images)"]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: folder.mkdir(),
            "is empty. Allowed: one folder of images per class, with or without train/ and",
        ),
        (
            lambda folder: write_images(folder, names=["cat"]),
            "holds images of one class, cat; allowed: two or more, each in a folder.",
        ),
        (
            lambda folder: write_images(folder / "photos") and draw(1, 1).save(folder / "1.png"),
            "holds images of one class, photos; allowed: two or more, each in a folder. If cat, dog are the classes, "
            "pass --dataset '{folder}/photos'.",
        ),
        (lambda folder: write_images(folder, count=1), "Class cat has a single image to train; allowed: 3 or more"),
        (lambda folder: write_images(folder, count=2), "Class cat has 2 images to train; allowed: 3 or more"),
        (
            lambda folder: write_images(folder, names=["Cat", "cat", "dog"]),
            "Classes 'Cat' and 'cat' of dataset '{folder}' differ in capitals, spaces or invisible characters only",
        ),
        (
            lambda folder: write_images(folder, names=["cat", "dog", "test"]),
            "'{folder}' holds split folders (test) beside class folders (cat, dog). Move the classes into the split "
            "folders, or rename a class that is named like a split. To use the splits only, pass --train_split NAME "
            "--test_split NAME; to use each folder as a class, pass their names as --classes.",
        ),
        (
            lambda folder: (write_images(folder / "val"), write_images(folder / "validation")),
            "has two validation splits, 'val' and 'validation'. Choose one with --validation_split, or join them.",
        ),
        (
            lambda folder: write_images(folder / "test"),
            "has no training split; its splits: test. Pass --train_split with the name of one.",
        ),
        (
            lambda folder: (folder / "cat").mkdir(parents=True) or (folder / "cat" / "1.txt").write_text("x"),
            "holds 1 files and no image: not an image. Allowed: one folder",
        ),
        (
            lambda folder: write_images(folder / "train", names=["."], count=12),
            "Split 'train' of '{folder}' holds 12 images in no class folder. Put the images into train/<class>/, one "
            "folder per class.",
        ),
        (
            lambda folder: folder.mkdir() or draw(1, 1).save(folder / "1.png"),
            "holds 1 image in no class folder. Allowed: one folder of images per class",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_what_was_found(tmp_path, make, message):
    folder = tmp_path / "data"
    make(folder)
    with pytest.raises(InputError, match=re.escape(message.format(folder=folder))):
        load(folder)


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "photos.rar").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"photos.rar' is a file of another kind. Allowed: one folder of images per class"
    ):
        load(tmp_path / "photos.rar")


def test_all_images_of_a_folder_are_one_part_for_an_evaluation(tmp_path):
    write_images(tmp_path / "test", count=3)
    write_images(tmp_path / "other", count=2, first=50)
    data = DataArguments(dataset=str(tmp_path), test_split="test", validation_split="other", classes=["dog", "cat"])
    images = load_images(data, seed=0, whole=True)
    assert images.counts() == {"all": [5, 5]}
    assert load_images(
        DataArguments(dataset=str(tmp_path / "test"), classes=["cat", "dog"]), seed=0, whole=True
    ).counts() == {"all": [3, 3]}
