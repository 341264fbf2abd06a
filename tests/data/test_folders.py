"""Each layout that a dataset on disk can have, and what is said of one that cannot be used."""

import re
import zipfile

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from PIL import features

from helpers.images import load_splits
from hfprobe.data.arguments import DataArguments
from hfprobe.data.file_kinds import register_heic
from hfprobe.data.splits import load_images
from hfprobe.system.errors import InputError

NAMES = ["cat", "dog"]


def draw(number, label):
    """A picture whose red channel says its class, and whose green channel is its own."""
    return PIL.Image.new("RGB", (32, 32), (200 * label, number, 0))


def write_pictures(folder, *, count=10, first=0, names=NAMES, ending="png"):
    """`count` pictures per class in one folder per class; their numbers start at `first`."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            draw(number, label).save(folder / name / f"{number:03}.{ending}")
    return folder


def load(place, **settings):
    return load_splits(DataArguments(dataset=str(place), **settings), seed=0)


def numbers(part):
    """The numbers of the pictures of a part, after a check that each has the label of its class."""
    assert (part.images[:, 0, 0, 0] == 200 * part.labels).all()
    return set(part.images[:, 0, 0, 1].tolist())


def check_drawn(splits, *, count):
    """Train, validation and test hold each of `count` pictures per class once, in shares of 64, 16 and 20 %."""
    parts = [splits.train, splits.validation, splits.test]
    for part, share in zip(parts, (0.64, 0.16, 0.2), strict=True):
        assert np.abs(np.bincount(part.labels) - share * count).max() < 1
        numbers(part)
    pictures = [tuple(image[0, 0]) for part in parts for image in part.images]
    assert len(pictures) == len(set(pictures)) == 2 * count


def test_one_folder_per_class_is_divided_into_train_validation_and_test(tmp_path):
    splits = load(write_pictures(tmp_path / "photos", count=25))
    assert splits.class_names == NAMES
    check_drawn(splits, count=25)
    assert splits.summary["division"] == (
        "The dataset has no test and no validation split: its images are divided into 64 % train, 16 % validation and "
        "20 % test, stratified by class, with seed 0."
    )


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("test", ["test", "Testing"])
@pytest.mark.parametrize("validation", ["val", "valid", "Validation", "dev"])
def test_split_folders_of_every_usual_name_are_used(tmp_path, train, validation, test):
    for first, name in ((0, train), (50, validation), (100, test)):
        write_pictures(tmp_path / name, first=first, count=5)
    splits = load(tmp_path)
    assert numbers(splits.train) == {0, 1, 2, 3, 4}
    assert numbers(splits.validation) == {50, 51, 52, 53, 54}
    assert numbers(splits.test) == {100, 101, 102, 103, 104}
    assert splits.summary["division"] == "The train and validation and test images are those of the dataset."


def test_a_missing_test_split_is_drawn_from_train_and_validation_stays(tmp_path):
    write_pictures(tmp_path / "train", count=10)
    write_pictures(tmp_path / "val", count=5, first=50)
    splits = load(tmp_path)
    assert numbers(splits.validation) == {50, 51, 52, 53, 54}
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert "The test images are 20 % of the training images" in splits.summary["division"]


def test_a_training_folder_alone_is_divided(tmp_path):
    write_pictures(tmp_path / "train", count=25)
    check_drawn(load(tmp_path), count=25)


def test_flags_name_splits_of_other_names(tmp_path):
    for first, name in ((0, "lab"), (50, "field"), (100, "old")):
        write_pictures(tmp_path / name, first=first, count=5)
    splits = load(tmp_path, train_split="lab", test_split="field")
    assert len(splits.train) == 8
    assert numbers(splits.test) == {50, 51, 52, 53, 54}
    with pytest.raises(InputError, match=re.escape("--test_split is 'filed', and dataset")):
        load(tmp_path, train_split="lab", test_split="filed")


def test_nested_folders_belong_to_the_class_below_the_split(tmp_path):
    write_pictures(tmp_path / "photos", count=10)
    (tmp_path / "photos" / "dog" / "val" / "spring").mkdir(parents=True)
    draw(99, 1).save(tmp_path / "photos" / "dog" / "val" / "spring" / "x.jpg", quality=100)
    splits = load(tmp_path / "photos")
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 21


def test_class_folders_that_are_links_are_followed(tmp_path):
    write_pictures(tmp_path / "photos", count=10)
    (tmp_path / "photos" / "dog").rename(tmp_path / "elsewhere")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    check_drawn(load(tmp_path / "photos", max_train_samples=10**6), count=10)


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(("image", "label"), [("file_name", "label"), ("Image", "Class"), ("path", "category")])
def test_a_csv_file_names_images_and_classes(tmp_path, name, separator, image, label):
    write_pictures(tmp_path / "pictures", count=25)
    rows = [(f"pictures/{name}/{number:03}.png", name) for name in NAMES for number in range(25)]
    pd.DataFrame(rows, columns=[image, label]).to_csv(tmp_path / name, sep=separator, index=False, encoding="utf-8-sig")
    for place in (tmp_path, tmp_path / name):
        check_drawn(load(place), count=25)


def test_a_csv_file_with_columns_of_other_names_and_a_split_column(tmp_path):
    write_pictures(tmp_path, count=10)
    rows = [
        (f"{name}/{number:03}.png", name, "train" if number < 8 else "TEST") for name in NAMES for number in range(10)
    ]
    pd.DataFrame(rows, columns=["scan", "diagnosis", "split"]).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(
        InputError, match=r"has no image column; its columns: scan, diagnosis, split. Pass one of them as"
    ):
        load(tmp_path / "table.csv")
    splits = load(tmp_path / "table.csv", image_column="scan", label_column="diagnosis")
    assert numbers(splits.test) == {8, 9}
    assert (len(splits.train), len(splits.validation)) == (13, 3)
    with pytest.raises(InputError, match=re.escape("has no column 'scam'; its columns: scan, diagnosis, split.")):
        load(tmp_path / "table.csv", image_column="scam", label_column="diagnosis")


def test_one_csv_file_per_split(tmp_path):
    write_pictures(tmp_path, count=10)
    for split, chosen in (("train", range(7)), ("test", range(7, 10))):
        rows = [(f"{name}/{number:03}.png", name) for name in NAMES for number in chosen]
        pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / f"{split}.csv", index=False)
    splits = load(tmp_path)
    assert numbers(splits.test) == {7, 8, 9}
    assert len(splits.train) + len(splits.validation) == 14


def test_numbers_as_classes_of_a_csv_file_are_in_their_order(tmp_path):
    write_pictures(tmp_path, count=5, names=["2", "10"])
    rows = [(f"{name}/{number:03}.png", name) for name in ("10", "2") for number in range(5)]
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / "labels.csv", index=False)
    assert load(tmp_path / "labels.csv").class_names == ["2", "10"]


def test_missing_files_of_a_csv_file_are_counted_and_named(tmp_path):
    write_pictures(tmp_path, count=3)
    rows = [(f"{name}/{number:03}.png", name) for name in NAMES for number in range(6)]
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / "labels.csv", index=False)
    expected = (
        f"'{tmp_path}/labels.csv' names 6 of 12 images that do not exist in '{tmp_path}': 'cat/003.png', "
        "'cat/004.png', "
        "'cat/005.png', 'dog/003.png', 'dog/004.png' and 1 more. Correct column 'file', or remove these rows."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load(tmp_path)


def parquet_rows(*, as_bytes, count=10, first=0):
    content = []
    for label, name in enumerate(NAMES):
        for number in range(first, first + count):
            file = f"{name}-{number}.png"
            draw(number, label).save(as_bytes["folder"] / file)
            data = (as_bytes["folder"] / file).read_bytes()
            image = data if as_bytes["how"] == "bytes" else {"bytes": data, "path": file}
            content.append({"image": image, "label": name})
    return pd.DataFrame(content)


@pytest.mark.parametrize("how", ["bytes", "struct"])
def test_parquet_files_of_pandas_with_the_bytes_of_images(tmp_path, how):
    (tmp_path / "made").mkdir()
    as_bytes = {"folder": tmp_path / "made", "how": how}
    (tmp_path / "one").mkdir()
    parquet_rows(as_bytes=as_bytes, count=25).to_parquet(tmp_path / "one" / "birds.parquet")
    for place in (tmp_path / "one", tmp_path / "one" / "birds.parquet"):
        check_drawn(load(place), count=25)
    (tmp_path / "several" / "data" / "test").mkdir(parents=True)
    parquet_rows(as_bytes=as_bytes).to_parquet(tmp_path / "several" / "data" / "train-0.parquet")
    parquet_rows(as_bytes=as_bytes, first=10).to_parquet(tmp_path / "several" / "data" / "train-1.parquet")
    parquet_rows(as_bytes=as_bytes, first=50).to_parquet(tmp_path / "several" / "data" / "test" / "0.parquet")
    splits = load(tmp_path / "several")
    assert len(splits.train) + len(splits.validation) == 40
    assert numbers(splits.test) == set(range(50, 60))


def test_save_to_disk_of_one_dataset_is_divided(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    rows = {"image": [draw(number, label) for label in (0, 1) for number in range(25)], "label": [0] * 25 + [1] * 25}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    check_drawn(load(tmp_path / "saved"), count=25)


@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_zip_file_of_class_folders_is_unpacked_once(tmp_path, top, monkeypatch):
    write_pictures(tmp_path / "photos", count=25)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted((tmp_path / "photos").rglob("*.png")):
            archive.write(file, top + str(file.relative_to(tmp_path / "photos")))
        archive.writestr("__MACOSX/._x.png", b"")
    check_drawn(load(tmp_path / "photos.zip"), count=25)
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("unpacked again"))
    load(tmp_path / "photos.zip")


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "cat/../../outside.png", "C:\\outside.png"])
def test_a_zip_file_with_a_member_outside_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat/1.png", b"x")
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(
        InputError, match=r"a path outside its own folder. Nothing was unpacked; make the zip file again"
    ):
        load(tmp_path / "photos.zip")


def test_a_damaged_zip_file_is_refused(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"no zip")
    with pytest.raises(
        InputError, match=r"cannot be unpacked: File is not a zip file. Pass an intact zip file without a"
    ):
        load(tmp_path / "photos.zip")


def test_what_is_left_out_is_named_with_its_reason_and_remedy(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("hfprobe.data.file_kinds.readable_endings", lambda: {".png"})
    photos = write_pictures(tmp_path / "photos", count=25)
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/c.avif", "dog/d.nef", "dog/notes.txt", "dog/._x.png", "dog/e.svg"):
        (photos / name).write_bytes(b"x")
    (photos / "empty").mkdir()
    draw(1, 1).save(photos / "loose.png")
    splits = load(photos)
    assert splits.summary["left_out"] == {
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
    write_pictures(tmp_path / "train", count=25)
    (tmp_path / "test").mkdir()
    draw(1, 1).save(tmp_path / "test" / "1.png")
    splits = load(tmp_path)
    check_drawn(splits, count=25)
    assert splits.summary["left_out"] == {"split without labels": ["test"]}


def test_a_test_split_without_labels_is_left_out(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    rows = {"image": [draw(number, label) for label in (0, 1) for number in range(25)], "label": [0] * 25 + [1] * 25}
    train = datasets.Dataset.from_dict(rows, features=features)
    test = datasets.Dataset.from_dict(rows | {"label": [-1] * 50}, features=features)
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "saved")
    splits = load(tmp_path / "saved")
    check_drawn(splits, count=25)
    assert splits.summary["left_out"] == {"split without labels": ["test (50 images)"]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: folder.mkdir(),
            "is empty. Allowed: one folder of images per class, with or without train/ and",
        ),
        (
            lambda folder: write_pictures(folder, names=["cat"]),
            "holds images of one class, cat; allowed: two or more, each in a folder.",
        ),
        (
            lambda folder: write_pictures(folder / "photos"),
            "holds images of one class, photos; allowed: two or more, each in a folder. If cat, dog are the classes, "
            "pass "
            "--dataset '{folder}/photos'.",
        ),
        (lambda folder: write_pictures(folder, count=1), "Class cat has a single image to train; allowed: 3 or more"),
        (lambda folder: write_pictures(folder, count=2), "Class cat has 2 images to train; allowed: 3 or more"),
        (
            lambda folder: write_pictures(folder, names=["Cat", "cat", "dog"]),
            "Classes 'Cat' and 'cat' of dataset '{folder}' differ in capitals or spaces only. Give them one name",
        ),
        (
            lambda folder: write_pictures(folder, names=["cat", "dog", "test"]),
            "'{folder}' holds split folders (test) beside class folders (cat, dog). Move the classes into the split "
            "folders, or rename a class that is named like a split.",
        ),
        (
            lambda folder: (write_pictures(folder / "val"), write_pictures(folder / "validation")),
            "has two validation splits, 'val' and 'validation'. Choose one with --validation_split, or join them.",
        ),
        (
            lambda folder: write_pictures(folder / "test"),
            "has no training split; its splits: test. Pass --train_split with the name of one.",
        ),
        (
            lambda folder: (folder / "cat").mkdir(parents=True) or (folder / "cat" / "1.txt").write_text("x"),
            "holds 1 files and no image: not an image. Allowed: one folder",
        ),
        (
            lambda folder: folder.mkdir() or draw(1, 1).save(folder / "1.png"),
            "holds images in no class folder. Allowed: one folder of images per class",
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


def test_all_unreadable_images_are_named_at_once_and_can_be_skipped(tmp_path, caplog):
    photos = write_pictures(tmp_path / "photos", count=25)
    for name in ("cat/003.png", "dog/007.png", "dog/011.png"):
        (photos / name).write_bytes(b"not a picture")
    with pytest.raises(InputError) as error:
        load(photos)
    assert str(error.value).startswith("3 images: Image ")
    for name in ("cat/003.png", "dog/007.png", "dog/011.png"):
        assert f"({photos}/{name}) cannot be read: not an image" in str(error.value)
    assert str(error.value).endswith(". Replace or remove them, or pass --skip_unreadable.")
    splits = load(photos, skip_unreadable=True)
    parts = (splits.train, splits.validation, splits.test)
    assert sum(len(part) for part in parts) == 47
    assert {number for part in parts for number in numbers(part)} == set(range(25))
    assert len(splits.summary["left_out"]["cannot be read"]) == 3
    assert "Left out 3 images: image " in caplog.text


def test_a_class_whose_images_are_all_unreadable_is_named(tmp_path):
    photos = write_pictures(tmp_path / "photos", count=10)
    for file in (photos / "dog").iterdir():
        file.write_bytes(b"not a picture")
    with pytest.raises(
        InputError, match=r"No train image of class dog can be read. Replace them, or leave the class out."
    ):
        load(photos, skip_unreadable=True)


def test_classes_are_checked_with_the_nearest_name(tmp_path):
    photos = write_pictures(tmp_path / "photos", count=10)
    for wrong, right in (("Cat", "cat"), ("dogs", "dog")):
        expected = f"Unknown class '{wrong}'. Did you mean '{right}'? The dataset has: cat, dog. Choose with --classes."
        with pytest.raises(InputError, match=re.escape(expected)):
            load(photos, classes=[wrong, "dog" if right == "cat" else "cat"])


def test_all_images_of_a_folder_are_one_part_for_an_evaluation(tmp_path):
    write_pictures(tmp_path / "test", count=3)
    write_pictures(tmp_path / "other", count=2, first=50)
    data = DataArguments(dataset=str(tmp_path), test_split="test", validation_split="other", classes=["dog", "cat"])
    images = load_images(data, seed=0, whole=True)
    assert images.counts() == {"all": [5, 5]}
    assert load_images(
        DataArguments(dataset=str(tmp_path / "test"), classes=["cat", "dog"]), seed=0, whole=True
    ).counts() == {"all": [3, 3]}


@pytest.mark.parametrize("ending", ["heic", "avif", "bmp", "gif", "jpg", "jp2", "ppm", "tga", "tif", "webp"])
def test_files_of_each_kind_are_read(tmp_path, ending):
    if ending == "heic":
        pytest.importorskip("pillow_heif")
        register_heic()
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    for label, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for number in range(10):
            PIL.Image.new("RGB", (32, 32), (200 * label, 0, 0)).save(tmp_path / name / f"{number}.{ending.upper()}")
    splits = load(tmp_path)
    assert np.abs(splits.train.images[:, 0, 0, 0] - 200.0 * splits.train.labels).max() <= 4
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 20
