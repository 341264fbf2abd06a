import re
import unicodedata

import datasets
import numpy as np
import PIL.Image
import pytest

from helpers.images import CLASSES, load_splits, make_dataset
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources import cifar10_mirror
from hfprobe.data.sources.source import load_source
from hfprobe.system.errors import InputError


def write_image_folder(folder, *, splits=("train", "test"), per_class=3):
    for split in splits:
        for number, name in enumerate(["cat", "dog"]):
            (folder / split / name).mkdir(parents=True)
            for image in range(per_class):
                pixels = PIL.Image.new("RGB", (40 + image, 30), (100 * number, 50, 0))
                pixels.save(folder / split / name / f"{image}.png")
    return folder


def test_save_to_disk_parquet_and_image_folders_give_the_same_columns(dataset_folder, tmp_path):
    for split, rows in datasets.load_from_disk(dataset_folder).items():
        rows.to_parquet(tmp_path / "parquet" / f"{split}-00000-of-00001.parquet")
    write_image_folder(tmp_path / "folder")
    for folder, classes in (
        (dataset_folder, CLASSES),
        (tmp_path / "parquet", CLASSES),
        (tmp_path / "folder", ["cat", "dog"]),
    ):
        images = load_source(DataArguments(dataset=str(folder))).splits
        assert set(images) == {"train", "test"}
        for rows in images.values():
            assert rows.column_names == ["image", "label"]
            assert rows.features["label"].names == classes
            assert isinstance(rows[0]["image"], PIL.Image.Image)


def test_images_of_different_sizes_are_resized_to_one_size(tmp_path):
    data = DataArguments(dataset=str(write_image_folder(tmp_path / "folder", per_class=5)), classes=["dog", "cat"])
    splits = load_splits(data, seed=0)
    assert splits.train.images.shape == (8, 32, 32, 3)
    assert {tuple(image[0, 0]) for image in splits.train.images[splits.train.labels == 0]} == {(100, 50, 0)}


def test_text_labels_become_class_names(tmp_path):
    rows = {"image": [PIL.Image.new("RGB", (8, 8))] * 4, "label": ["owl", "owl", "ant", "ant"]}
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    rows = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "text")
    train = load_source(DataArguments(dataset=str(tmp_path / "text"))).splits["train"]
    assert train.features["label"].names == ["ant", "owl"]
    assert train["label"][:] == [1, 1, 0, 0]


def refused(dataset, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_splits(DataArguments(dataset=str(dataset), classes=["cat", "dog"]), seed=0)


def test_missing_folder_is_an_input_error():
    refused("./nowhere", "--dataset './nowhere' is not a folder or a file. Pass a hub id or a path that exists.")


def test_empty_folder_is_an_input_error(tmp_path):
    refused(tmp_path, f"Dataset folder '{tmp_path}' is empty. Allowed: one folder of images per class, with")


def test_empty_split_is_an_input_error(tmp_path):
    write_image_folder(tmp_path, splits=("train",))
    (tmp_path / "test").mkdir()
    refused(
        tmp_path, f"Split 'test' of '{tmp_path}' is empty. Put the images into test/<class>/, one folder per class."
    )


def test_required_splits_do_not_depend_on_the_mirror(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_mirror, "SPLIT_FILES", {"train": None, "extra": None})
    write_image_folder(tmp_path)
    assert set(load_source(DataArguments(dataset=str(tmp_path))).splits) == {"train", "test"}


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ("label", "has no label column; its columns: img. Pass one of them as --label_column."),
        ("img", "has no image column; its columns: label. Pass one of them as --image_column."),
    ],
)
def test_missing_column_is_an_input_error(tmp_path, dropped, message):
    make_dataset(train=20, test=10).remove_columns(dropped).save_to_disk(tmp_path / "data")
    refused(tmp_path / "data", message)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_error_for_an_unreadable_image_names_it(tmp_path, content):
    write_image_folder(tmp_path)
    broken = tmp_path / "train" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60] if content is None else content)
    refused(tmp_path, f"Image 4 of split 'train' ({broken}) cannot be read:")


def test_invalid_hub_id_is_an_input_error():
    refused("what ever", "--dataset 'what ever' is neither a folder or file nor a hub id such as uoft-cs/cifar10.")


def write_classes(folder, classes, *, per_class=10):
    """train/ and test/ with one folder per class; each image has a colour of its own in both splits."""
    for split_number, split in enumerate(("train", "test")):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for image in range(per_class):
                colour = (20 * number, 20 * image, 100 * split_number)
                PIL.Image.new("RGB", (32, 32), colour).save(folder / split / name / f"{image}.png")
    return folder


def load(folder, classes):
    return load_splits(DataArguments(dataset=str(folder), classes=classes), seed=0)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        *(("photos", name) for name in ("train", "test_tube", "val", "dev", "testing", "validation")),
        *((place, "test_tube") for place in ("test", "train-set", "data[v1]")),
    ],
)
def test_split_is_the_content_of_its_folder_whatever_the_names_of_classes_and_parents(tmp_path, name, place):
    splits = load(write_classes(tmp_path / place, ["cat", name]), ["cat", name])
    for part, count, blue in ((splits.train, 16, 0), (splits.validation, 4, 0), (splits.test, 20, 100)):
        assert len(part) == count
        assert set(part.images[:, 0, 0, 2].tolist()) == {blue}
        assert (part.images[:, 0, 0, 0] == 20 * part.labels).all()


def save_parquet(file, names, labels, *, colours=None):
    """One 32 x 32 image for each label, in the colour of its class name."""
    colours = colours or {"amber": (255, 191, 0), "blue": (0, 0, 255), "coral": (255, 127, 80)}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    images = [PIL.Image.new("RGB", (32, 32), colours[names[label]]) for label in labels]
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(file)


def test_class_numbers_are_read_separately_from_each_parquet_file(tmp_path):
    folder = tmp_path / "da*ta[v1]?"  # a path, not a pattern
    save_parquet(folder / "train-00000-of-00002.parquet", ["amber", "blue"], [0, 1] * 10)
    save_parquet(folder / "train-00001-of-00002.parquet", ["coral", "blue", "amber"], [1, 2] * 10)
    save_parquet(folder / "test.parquet", ["blue", "amber"], [0, 1] * 5)
    splits = load(folder, ["blue", "amber"])
    for part in (splits.train, splits.validation, splits.test):
        reds = part.images[:, 0, 0, 0]
        assert set(reds[part.labels == 0].tolist()) == {0}
        assert set(reds[part.labels == 1].tolist()) == {255}


def test_parquet_file_that_belongs_to_two_splits_is_refused(tmp_path):
    save_parquet(tmp_path / "train.parquet", ["amber", "blue"], [0, 1] * 10)
    save_parquet(tmp_path / "test" / "train.parquet", ["amber", "blue"], [0, 1] * 10)
    with pytest.raises(InputError, match="belongs to two splits: its name says train, a folder above it says test"):
        load(tmp_path, ["amber", "blue"])


def labelled_dataset(folder, values, feature):
    features = datasets.Features(image=datasets.Image(), label=feature)
    rows = {"image": [PIL.Image.new("RGB", (8, 8), (index, 0, 0)) for index in range(len(values))], "label": values}
    rows = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(folder)
    return folder


@pytest.mark.parametrize(
    ("values", "feature", "classes"),
    [
        ([True, False] * 5, datasets.Value("bool"), ["true", "false"]),
        ([10, 2] * 5, datasets.Value("int64"), ["10", "2"]),
        ([["owl"], ["ant"]] * 5, datasets.List(datasets.Value("string")), ["owl", "ant"]),
        ([[1], [0]] * 5, datasets.List(datasets.ClassLabel(names=["ant", "owl"])), ["owl", "ant"]),
        (["owl", "ant"] * 5, datasets.Value("string"), ["owl", "ant"]),
        (["owl", None, "ant", None] * 5, datasets.Value("string"), ["owl", "ant"]),
        (["e\u0301le\u0301phant", "ant"] * 5, datasets.Value("string"), ["éléphant", "ant"]),
        ([0, 1, 2, 2] * 5, datasets.ClassLabel(names=["é", "ant", "e\u0301"]), ["é", "ant"]),
    ],
)
def test_labels_of_every_type_become_class_names(tmp_path, values, feature, classes):
    splits = load(labelled_dataset(tmp_path / "data", values, feature), classes)
    text = {True: "true", False: "false"} if feature == datasets.Value("bool") else {}
    for index, label in zip(splits.test.index, splits.test.labels, strict=True):
        value = values[index][0] if isinstance(values[index], list) else values[index]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        expected = names[value] if names else text.get(value, str(value))
        assert classes[label] == unicodedata.normalize("NFC", expected)
    assert len(splits.test) == sum(value is not None for value in values)


@pytest.mark.parametrize(
    ("values", "feature", "message"),
    [
        (
            [["owl"], ["owl", "ant"]] * 5,
            datasets.List(datasets.Value("string")),
            "has 2 labels in column 'label'; allowed: one per image.",
        ),
        ([["owl"], []] * 5, datasets.List(datasets.Value("string")), "has 0 labels in column 'label'"),
        ([{"a": 1}] * 10, {"a": datasets.Value("int64")}, "holds struct<a: int64>; allowed: one class per image."),
    ],
)
def test_labels_other_than_one_class_per_image_are_refused(tmp_path, values, feature, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load(labelled_dataset(tmp_path / "data", values, feature), ["owl", "ant"])


def test_composed_and_decomposed_names_are_the_same_class(tmp_path):
    folder = write_classes(tmp_path / "photos", ["cafe\u0301", "the"])
    (folder / "test" / "cafe\u0301").rename(folder / "test" / "café")
    splits = load(folder, ["caf\u00e9", "the"])
    assert splits.class_names == ["café", "the"]
    assert load(folder, ["cafe\u0301", "the"]).fingerprint == splits.fingerprint
    assert np.bincount(splits.test.labels).tolist() == [10, 10]


def test_linked_folders_are_followed_and_loops_are_refused(tmp_path):
    folder = write_classes(tmp_path / "photos", ["cat", "dog"])
    (folder / "train" / "dog").rename(tmp_path / "elsewhere")
    (folder / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    assert len(load(folder, ["cat", "dog"]).train) == 16
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    again = folder / "train" / "dog" / "again"
    with pytest.raises(InputError, match=re.escape(f"The link '{again}' points to a folder that contains it.")):
        load(folder, ["cat", "dog"])


def test_error_for_a_deleted_image_names_it(tmp_path):
    folder = write_classes(tmp_path / "photos", ["cat", "dog"])
    (folder / "train" / "cat" / "x.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=re.escape("x.png) cannot be read: No such file or directory.")):
        load(folder, ["cat", "dog"])
