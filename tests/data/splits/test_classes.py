"""Which classes are kept, and what is said of images of other classes and of images without a label."""

import re

import datasets
import pandas as pd
import pytest

from helpers.image_folders import NAMES, draw, load, write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError


def load_names(place, **settings):
    return load_images(DataArguments(dataset=str(place), **settings), seed=0)


def test_classes_are_checked_with_the_nearest_name(tmp_path):
    photos = write_images(tmp_path / "photos", count=10)
    for wrong, right in (("Cat", "cat"), ("dogs", "dog")):
        expected = f"Unknown class '{wrong}'. Did you mean '{right}'? The dataset has: cat, dog. Choose with --classes."
        with pytest.raises(InputError, match=re.escape(expected)):
            load(photos, classes=[wrong, "dog" if right == "cat" else "cat"])


def write_table(folder, splits, *, kind):
    """One dataset of images by (split, class) -> count, as `kind`."""
    rows = []
    for (split, name), count in splits.items():
        if kind == "folders":
            write_images(folder / split, names=[name], count=count)
        for number in range(count):
            draw(number, 0).save(folder / f"{split}-{name}-{number}.png")
            rows.append((f"{split}-{name}-{number}.png", name, split))
    table = pd.DataFrame(rows, columns=["file", "label", "split"])
    if kind == "csv":
        table.to_csv(folder / "metadata.csv", index=False)
        return folder
    if kind == "folders":
        for file in table["file"]:
            (folder / file).unlink()
        return folder
    parts = {}
    for split, part in table.groupby("split", sort=False):
        content = {"image": [{"bytes": (folder / file).read_bytes(), "path": None} for file in part["file"]]}
        names = [*sorted({*table["label"]}), "absent"]
        if kind == "class_label":  # all names in every split, and one that no image has
            features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        else:
            features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
        content["label"] = part["label"].tolist()
        parts[split] = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict(parts).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("kind", ["folders", "csv", "class_label", "text"])
def test_a_class_that_train_lacks_is_refused_and_chosen_classes_leave_it_out_with_a_word(tmp_path, kind):
    counts = {("train", "cat"): 6, ("train", "dog"): 6, ("test", "cat"): 2, ("test", "dog"): 2, ("test", "wolf"): 3}
    place = write_table(tmp_path, counts, kind=kind)
    expected = (
        "Class 'wolf' of split 'test' has 3 images and is not in train. Rename the class or move its images, or choose "
        "the classes on purpose with --classes."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load_names(place)
    images = load_names(place, classes=["dog", "cat"])
    assert images.left_out["class that is not among --classes"] == ["3 test images (wolf 3)"]
    assert "  Left out (1), class that is not among --classes: 3 test images (wolf 3)" in images.describe()
    assert images.counts()["test"] == [2, 2]


@pytest.mark.parametrize("name", ["Dog", "DOG", "dogs", "d og"])
def test_the_near_name_of_a_class_that_train_lacks_is_named(tmp_path, name):
    write_images(tmp_path / "train", count=6)
    write_images(tmp_path / "val", names=["cat", name], count=5)
    expected = f"Class '{name}' of split 'validation' has 5 images and is not in train, which has 'dog'. Rename the"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}"):
        load_names(tmp_path)


def test_several_classes_that_train_lacks_are_all_named(tmp_path):
    write_images(tmp_path / "train", count=6)
    write_images(tmp_path / "val", names=["Cat", "Dog"], count=1)
    write_images(tmp_path / "test", names=["cat", "fox"], count=2)
    expected = (
        "Class 'Cat' of split 'validation' has 1 image and is not in train, which has 'cat'; class 'Dog' of split "
        "'validation' has 1 image and is not in train, which has 'dog'; class 'fox' of split 'test' has 2 images and "
        "is not in train. Rename the class or move its images, or choose the classes on purpose with --classes. If the "
        "images of 'validation' have no labels, put them into the folder of the split itself, or leave their labels "
        "empty."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load_names(tmp_path)


def test_images_of_classes_that_are_not_chosen_are_counted_by_split_and_class(tmp_path):
    names = ["ant", "bee", *(f"kind{number:02}" for number in range(14))]
    write_images(tmp_path, names=names, count=3)
    assert load_names(tmp_path, classes=["ant", "bee"]).left_out == {
        "class that is not among --classes": [
            "42 train images (" + ", ".join(f"kind{number:02} 3" for number in range(12)) + " and 2 more classes)"
        ]
    }


@pytest.mark.parametrize("folder", ["unknown", "test", "images", "Unlabelled", "-1"])
def test_a_single_folder_of_images_without_labels_is_no_split(tmp_path, folder):
    write_images(tmp_path / "train", count=5)
    write_images(tmp_path / "test", names=[folder], count=4)
    write_images(tmp_path / "val", names=[folder], count=1)
    images = load_names(tmp_path)
    assert images.counts() == {"train": [3, 3], "validation": [1, 1], "test": [1, 1]}
    left_out = [f"validation ('{folder}', 1 image)", f"test ('{folder}', 4 images)"]
    if folder == "test":  # test/test/ is a folder in a folder
        left_out = ["test", left_out[0]]
    assert sorted(images.left_out["split without labels"]) == sorted(left_out)


def test_a_single_folder_is_a_class_where_train_has_it(tmp_path):
    write_images(tmp_path / "train", names=["cat", "unknown"], count=5)
    write_images(tmp_path / "test", names=["unknown"], count=4)
    assert load_names(tmp_path).counts()["test"] == [0, 4]


@pytest.mark.parametrize("missing", [-1, float("nan"), None])
@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_numbers_that_are_no_label(tmp_path, missing, kind):
    def rows(labels):
        draw(0, 0).save(tmp_path / "0.png")
        content = (tmp_path / "0.png").read_bytes()
        return pd.DataFrame({"image": [{"bytes": content, "path": f"{n}.png"} for n in range(len(labels))]}).assign(
            label=pd.Series(labels)
        )

    parts = {"train": rows([0, 1] * 25 + [missing]), "test": rows([missing] * 3)}
    (tmp_path / "0.png").unlink(missing_ok=True)
    if kind == "parquet":
        for name, part in parts.items():
            part.to_parquet(tmp_path / f"{name}.parquet")
    else:
        saved = {
            name: datasets.Dataset.from_dict(
                {"image": part["image"].tolist(), "label": part["label"].tolist()},
                features=datasets.Features(image=datasets.Image(), label=datasets.Value("float32")),
            )
            for name, part in parts.items()
        }
        datasets.DatasetDict(saved).save_to_disk(tmp_path)
    images = load_names(tmp_path)
    assert images.class_names == ["0", "1"]
    assert images.counts() == {"train": [16, 16], "validation": [4, 4], "test": [5, 5]}
    assert images.left_out == {"split without labels": ["test (3 images)"], "without a label": ["1 train image"]}


def test_labels_of_minus_one_and_one_are_not_two_classes(tmp_path):
    rows = pd.DataFrame({"file": [f"cat/{number:03}.png" for number in range(10)], "label": [-1, 1] * 5})
    write_images(tmp_path, names=["cat"])
    rows.to_csv(tmp_path / "metadata.csv", index=False)
    expected = (
        "has images of 1 class, 1; allowed: two classes or more. 5 images are without a label; -1 and empty values are "
        "none."
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        load_names(tmp_path)


def test_test_rows_of_a_table_with_an_unknown_class_only_are_no_test_split(tmp_path):
    write_images(tmp_path / "all", count=5)
    rows = [(f"all/{name}/{number:03}.png", name, "train") for name in NAMES for number in range(5)]
    write_images(tmp_path / "all", names=["new"], count=3)
    rows += [(f"all/new/{number:03}.png", "unknown", "test") for number in range(3)]
    pd.DataFrame(rows, columns=["file", "label", "split"]).to_csv(tmp_path / "metadata.csv", index=False)
    images = load_names(tmp_path)
    assert images.counts() == {"train": [3, 3], "validation": [1, 1], "test": [1, 1]}
    assert images.left_out == {"split without labels": ["test ('unknown', 3 images)"]}


def test_a_parquet_test_file_without_a_label_column_is_no_test_split(tmp_path):
    content = (write_images(tmp_path / ".made", names=["cat"], count=1) / "cat" / "000.png").read_bytes()
    rows = pd.DataFrame({"image": [content] * 50, "label": ["cat", "dog"] * 25, "id": range(50)})
    rows.to_parquet(tmp_path / "train.parquet")
    rows.drop(columns="label").to_parquet(tmp_path / "test.parquet")
    assert load_names(tmp_path).left_out == {"split without labels": ["test.parquet"]}
    (tmp_path / "train.parquet").unlink()
    for place in (tmp_path / "test.parquet", tmp_path):
        with pytest.raises(InputError, match="has no label column; its columns: image, id"):
            load_names(place)


@pytest.mark.parametrize("name", ["\u200bcat", "cat\ufeff", "c\u00adat"])
def test_classes_that_differ_in_invisible_characters_are_refused(tmp_path, name):
    write_images(tmp_path, names=["cat", "dog", name])
    with pytest.raises(InputError, match="differ in capitals, spaces or invisible characters only"):
        load_names(tmp_path)


def test_errors_of_a_spreadsheet_are_no_class(tmp_path):
    rows = []
    for number in range(20):
        draw(number, 0).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", ["cat", "dog", "#N/A", "#REF!"][number % 4]))
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / "labels.csv", index=False)
    images = load_names(tmp_path)
    assert (images.class_names, images.left_out) == (NAMES, {"without a label": ["10 train images"]})
