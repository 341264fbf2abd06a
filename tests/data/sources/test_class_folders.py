"""Which folders are splits, which are classes, and which are neither."""

import re

import pytest

from helpers.image_folders import NAMES, draw, write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.file_kinds import SYSTEM
from hfprobe.data.sources.source import load_source
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError

SYSTEM_NAMES = [
    *("@eaDir", "#recycle", "$RECYCLE.BIN", ".thumbnails", "Thumbs", "__MACOSX", "@Recycle", "#snapshot", "thumbnails"),
    *("@Recently-Snapshot", "System Volume Information", "SYSTEM VOLUME INFORMATION", ".Trash-1000", "lost+found"),
    *(".ipynb_checkpoints", "@EADIR", "THUMBS"),
]


def find(folder, **settings):
    whole = settings.pop("whole", False)
    return load_images(DataArguments(dataset=str(folder), **settings), seed=0, whole=whole)


def sizes(images):
    assert images.class_names == NAMES
    return {name: len(rows) for name, rows in images.parts.items()}


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def write_loose(folder, count=2):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        draw(number, 0).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("training_set", "test_set"), ("train_images", "test_images"), ("TrainingSet", "TestSet")),
        *(("train2017", "test2017"), ("train_data", "Test Data"), ("train-split", "testing")),
    ],
)
@pytest.mark.parametrize("layout", ["{}", "{0}/{0}", "{}/images", "photos/{}", "photos/{0}/{0}", "a/b/{}/c/d"])
def test_split_folders_of_other_names_and_one_level_down(tmp_path, train, test, layout):
    write_images(tmp_path / layout.format(train), count=2)
    write_images(tmp_path / layout.format(test), count=1)
    splits = load_source(DataArguments(dataset=str(tmp_path))).splits
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "test": 2}
    assert all(rows.features["label"].names == NAMES for rows in splits.values())


def test_a_test_folder_with_images_in_no_class_folder_is_left_out(tmp_path):
    write_images(tmp_path / "train" / "train", count=5)
    write_loose(tmp_path / "test" / "test", count=80)
    images = find(tmp_path)
    assert sum(sizes(images).values()) == 10
    assert images.left_out == {"split without labels": ["test"]}
    with pytest.raises(InputError, match=r"Split 'test' of '.*' holds 80 images in no class folder. Put the images"):
        find(tmp_path, train_split="test")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda train: write_loose(train, 80), "holds 80 images in no class folder"),
        (lambda train: write_loose(train / "train", 1), "holds 1 image in no class folder"),
        (lambda train: write_loose(train / "@eaDir"), f"holds nothing but @eaDir ({SYSTEM})"),
        (lambda train: write_loose(train / ".hidden"), f"holds nothing but .hidden ({SYSTEM})"),
        (lambda train: (train / ".a.png").touch(), "holds hidden files only"),
        (lambda train: (train / "a.txt").touch(), "holds 1 files and no image: not an image"),
        (lambda train: (train / "cat").mkdir(), "is empty"),
    ],
)
@pytest.mark.parametrize("split", ["train", "train_images"])
def test_only_an_empty_split_folder_is_called_empty(tmp_path, make, found, split):
    (tmp_path / split).mkdir()
    write_images(tmp_path / "test")
    make(tmp_path / split)
    expected = f"Split '{split}' of '{tmp_path}' {found}. Put the images into {split}/<class>/, one folder per class."
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        find(tmp_path)


def test_flags_find_splits_one_level_down(tmp_path):
    write_images(tmp_path / "photos" / "lab" / "lab", count=5)
    write_images(tmp_path / "photos" / "field" / "field", count=3, first=50)
    write_loose(tmp_path / "photos" / "seg_pred" / "seg_pred")
    images = find(tmp_path, train_split="lab", test_split="field")
    assert sizes(images) == {"train": 8, "validation": 2, "test": 6}
    assert images.left_out == {"folder that is not used": ["seg_pred"]}


@pytest.mark.parametrize("top", ["photos", "a/b", "training_data", "train/train"])
def test_class_folders_in_the_only_folder_of_a_dataset(tmp_path, top):
    write_images(tmp_path / top, count=10)
    (tmp_path / "README.txt").touch()
    images = find(tmp_path)
    assert sum(sizes(images).values()) == 20
    assert images.left_out == {"not an image": ["README.txt"]}


def test_a_folder_around_split_folders_may_be_named_like_a_split(tmp_path):
    write_images(tmp_path / "training_data" / "train", count=5)
    write_images(tmp_path / "training_data" / "test", count=3, first=50)
    assert sizes(find(tmp_path)) == {"train": 8, "validation": 2, "test": 6}


def test_a_class_folder_in_decomposed_unicode_is_no_folder_around_classes(tmp_path):
    write_loose(tmp_path / "cafe\u0301" / "2019")
    assert find(tmp_path, classes=["caf\u00e9", "tea"], whole=True).counts() == {"all": [2, 0]}
    write_loose(tmp_path / "cafe\u0301")
    with pytest.raises(InputError, match=r"images of one class, caf\u00e9; .* If 2019 are the classes, pass --dataset"):
        find(tmp_path)


def test_a_class_with_one_subfolder_is_no_folder_around_classes(tmp_path):
    write_images(tmp_path / "train", count=5)
    write_loose(tmp_path / "test" / "cat" / "2019")
    write_loose(tmp_path / "test" / "cat" / "2020")
    assert find(tmp_path).counts()["test"] == [4, 0]
    assert find(tmp_path / "test", classes=NAMES, whole=True).counts() == {"all": [4, 0]}


@pytest.mark.parametrize("names", [["flowers_train", "flowers_test"], ["trainA", "trainB", "testA", "testB", "other"]])
@pytest.mark.parametrize("inside", [NAMES, ["."]])
def test_folders_that_are_named_like_splits_are_no_classes(tmp_path, names, inside):
    for name in names:
        write_images(tmp_path / name, count=5, names=inside)
    expected = (
        f"The folders in '{tmp_path}' are named like splits, not like classes: {', '.join(sorted(names))}. If they are "
        "splits, pass --train_split NAME --test_split NAME; if they are classes, pass them as --classes."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        find(tmp_path)
    for classes in (names, names[-2:]):
        assert find(tmp_path, classes=classes).class_names == classes
    if inside == NAMES and len(names) == 2:
        assert sizes(find(tmp_path, train_split=names[0], test_split=names[1]))["test"] == 10


def test_a_class_that_is_named_like_a_split_is_one_if_the_classes_are_named(tmp_path):
    vehicles = ["train", "car", "bus"]
    write_images(tmp_path, names=vehicles)
    with pytest.raises(InputError, match=r"holds split folders \(train\) beside class folders \(bus, car\)"):
        find(tmp_path)
    with pytest.raises(InputError, match=r"holds split folders \(train\) beside class folders \(bus, car\)"):
        find(tmp_path, classes=["car", "bus"])
    assert sum(map(sum, find(tmp_path, classes=vehicles).counts().values())) == 30


def test_classes_in_split_folders_may_be_named_like_splits(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / split, names=["car", "train"], count=5)
    for settings in ({}, {"classes": ["car", "train"]}):
        assert find(tmp_path, **settings).counts()["test"] == [5, 5]


def test_classes_that_hold_the_same_folders_are_used_with_a_warning(tmp_path, caplog):
    for first, name in enumerate(("lab", "field")):
        write_images(tmp_path / name, names="abcdefgh", count=2, first=50 * first)
    expected = (
        "The classes are field, lab, and each of these folders holds the folders a, b, c, d, e, f, g, h. If those are "
        "the classes, pass --train_split NAME --test_split NAME."
    )
    assert find(tmp_path).class_names == ["field", "lab"]
    assert expected in warnings(caplog)
    caplog.clear()
    find(tmp_path, classes=["lab", "field"])
    find(tmp_path, group_by="folder")
    assert not warnings(caplog)


@pytest.mark.parametrize("name", SYSTEM_NAMES)
@pytest.mark.parametrize("places", [["cat/", "cat/old/", ""], ["", "train/cat/old/", "train/dog/", "train/"]])
def test_system_folders_hold_no_images_and_are_no_classes(tmp_path, name, places):
    write_images(tmp_path / ("train" if "train/" in places else ""), count=2)
    for place in places:
        write_loose(tmp_path / place / name / "1.jpg", count=1)  # as @eaDir has them
        write_loose(tmp_path / place / name, count=1)
    source = load_source(DataArguments(dataset=str(tmp_path)))
    assert len(source.splits["train"]) == 4
    assert source.splits["train"].features["label"].names == NAMES
    assert source.left_out == {SYSTEM: [place + name for place in places]}


def test_a_dataset_is_found_beside_system_folders(tmp_path):
    write_images(tmp_path / "photos", count=5)
    write_loose(tmp_path / "@eaDir")
    for name in ("Thumbs.db", "desktop.ini"):
        (tmp_path / "photos" / "cat" / name).touch()
    images = find(tmp_path)
    assert sum(sizes(images).values()) == 10
    assert images.left_out == {"not an image": ["cat/Thumbs.db", "cat/desktop.ini"], SYSTEM: ["@eaDir"]}


def test_a_class_that_is_named_like_a_system_folder_is_one_if_the_classes_are_named(tmp_path, caplog):
    gestures = ["fist", "palm", "thumbs"]
    write_images(tmp_path, names=gestures)
    images = find(tmp_path)
    assert images.class_names == ["fist", "palm"]
    assert images.left_out == {SYSTEM: ["thumbs"]}
    expected = (
        "The folder 'thumbs' is left out as one of thumbnails or deleted files. If it is a class, pass all classes as "
        "--classes."
    )
    assert expected in warnings(caplog)
    caplog.clear()
    assert find(tmp_path, classes=gestures).class_names == gestures
    assert find(tmp_path, classes=gestures, whole=True).counts() == {"all": [10, 10, 10]}
    assert not warnings(caplog)


def test_splits_inside_class_folders_are_refused(tmp_path):
    for split in ("train", "test"):
        for name in NAMES:
            write_loose(tmp_path / name / split)
    with pytest.raises(InputError, match="hold folders that are named like splits: test, train"):
        find(tmp_path)
    assert len(find(tmp_path, classes=NAMES).class_names) == 2


def test_a_folder_that_loses_all_of_its_files_is_a_warning(tmp_path, caplog):
    write_images(tmp_path)
    (tmp_path / "wolf").mkdir()
    (tmp_path / "wolf" / "1.cr2").write_bytes(b"x")
    find(tmp_path)
    message = "The folder 'wolf' is no class, because it holds no image that can be read: raw files of a camera"
    assert any(text.startswith(message) for text in warnings(caplog))
