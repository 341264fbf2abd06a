"""Which tables of a dataset count, and what holds where class folders exist too."""

import re
from pathlib import PurePath

import numpy as np
import pandas as pd
import pytest

from helpers.image_folders import NAMES, draw, find, labels_of, write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.tables import is_own_output
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError
from hfprobe.tasks.predict.result import Predictions
from hfprobe.tasks.predict.table import write_predictions

COUNT = 5
FORMATS = ("csv", "jsonl", "parquet")


def write_table(file, rows, columns=("file", "label")):
    """A table in the format of its ending."""
    table = pd.DataFrame(rows, columns=list(columns))
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        table.to_parquet(file)
    elif file.suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_csv(file, sep="\t" if file.suffix == ".tsv" else ",", index=False)
    return file


def write_flat(folder, *, count=COUNT, first=0):
    """Images directly in a folder, named cat-3.png; their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(NAMES):
        for number in range(first, first + count):
            draw(number, label).save(folder / f"{name}-{number}.png")
    return [(f"{name}-{number}.png", name) for name in NAMES for number in range(first, first + count)]


def with_classes(folder, *, first=0):
    """Class folders with images; their rows."""
    write_images(folder, count=COUNT, first=first)
    return [(f"{name}/{number:03}.png", name) for name in NAMES for number in range(first, first + COUNT)]


def write_answers(file, paths):
    """What `hfprobe predict` writes for these images: everything is a dog."""
    answers = Predictions(NAMES, paths, np.array([[0.1, 0.9]] * len(paths)), {})
    write_predictions(file, answers, top=1)


def is_every_image_in_its_class(images):
    labels = labels_of(images)
    return bool(labels) and all(name.startswith(label) for name, label in labels.items())


LAYOUTS = {
    "class folders": {"": True},
    "split folders with class folders": {"train": True, "test": True},
    "split folders without class folders": {"train": False, "test": False},
}
TABLES = ("predictions", "foreign", "some", "contradiction", "same")
PLACES = ("top", "split folder", "class folder")


def make_layout(folder, layout):
    """The images of a layout: their paths relative to `folder`, and their classes."""
    rows = []
    for first, (split, has_classes) in enumerate(LAYOUTS[layout].items()):
        write = with_classes if has_classes else write_flat
        rows += [(str(PurePath(split, path)), label) for path, label in write(folder / split, first=50 * first)]
    return rows


def has_place(layout, place):
    splits = LAYOUTS[layout]
    return {"top": True, "split folder": "" not in splits, "class folder": all(splits.values())}[place]


# What a table says does not depend on its format: the others than CSV are tried above the split folders.
COMBINATIONS = [
    (layout, table, place, ending)
    for layout in LAYOUTS
    for table in TABLES
    for place in PLACES
    for ending in FORMATS
    if has_place(layout, place) and (ending == "csv" or (place == "top" and layout != "class folders"))
]


@pytest.mark.parametrize(("layout", "table", "place", "ending"), COMBINATIONS)
def test_which_table_counts(tmp_path, layout, table, place, ending):
    """Layout x table x place: what docs/data.md says."""
    rows = everything = make_layout(tmp_path, layout)
    split = next(iter(LAYOUTS[layout]))
    has_classes = LAYOUTS[layout][split]
    below = {"top": "", "split folder": split, "class folder": str(PurePath(split, "cat"))}[place]
    file = tmp_path / below / f"table.{ending}"
    if place == "split folder":
        rows = [row for row in rows if row[0].startswith(split)]
    named = {"some": rows[:3], "contradiction": [(path, "dog") for path, _ in rows]}.get(table, rows)
    if table == "predictions":
        write_answers(file, [str(tmp_path / path) for path, _ in rows])
    elif table == "foreign":
        write_table(file, [("song.mp3", "rock")] * 3, ("note", "who"))
    else:
        write_table(file, [(str(tmp_path / path), label) for path, label in named])
    counts = table not in ("predictions", "foreign") and place != "class folder"
    if has_classes and counts and table != "same":
        with pytest.raises(InputError, match=r"To use the table, pass --dataset .*; to use the class folders"):
            find(tmp_path)
    elif has_classes:  # the folders hold
        images = find(tmp_path)
        assert labels_of(images) == {"/".join(PurePath(path).parts[-2:]): label for path, label in everything}
        assert (images.counts()["test"] == [COUNT, COUNT]) == (split == "train")
        assert any(str(file.relative_to(tmp_path)) in names for names in images.left_out.values())
    elif counts and table == "same":  # the table holds
        images = find(tmp_path)
        assert labels_of(images) == dict(rows)
        assert f"(labels: {file.relative_to(tmp_path)}, column 'label')" in images.source
    else:
        with pytest.raises(InputError):
            find(tmp_path)


@pytest.mark.parametrize("flags", [{}, {"label_column": "predicted_label"}])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_predict_is_refused_as_a_dataset(tmp_path, ending, flags):
    write_flat(tmp_path)
    write_answers(tmp_path / f"answers.{ending}", [str(path) for path in tmp_path.glob("*.png")])
    with pytest.raises(InputError, match="is a table of hfprobe predict, whose labels are answers"):
        find(tmp_path / f"answers.{ending}", **flags)
    with pytest.raises(InputError, match="in no class folder"):
        find(tmp_path, **flags)


@pytest.mark.parametrize(("ending", "splits"), [("csv", ()), ("jsonl", ("train", "test")), ("parquet", ())])
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda rows: rows[:3], "names 3 of their {all} images"),
        (lambda rows: [(path, "dog") for path, _ in rows], "gives {cats} of their {all} images another class"),
        (
            lambda rows: [*rows, (rows[0][0].replace("cat/000", "loose"), "cat")],
            "names 1 images that are in none of them",
        ),
    ],
    ids=["some", "other classes", "more"],
)
def test_a_table_that_differs_from_class_folders_is_refused_with_both_ways_out(
    tmp_path, ending, splits, change, difference
):
    rows = []
    for split in splits or ("",):
        found = with_classes(tmp_path / split)
        rows += [(f"{split}/{path}" if split else path, name) for path, name in found]
    for split in splits or ("",):
        draw(1, 1).save(tmp_path / split / "loose.png")
    table = write_table(tmp_path / f"review.{ending}", change(rows))
    difference = difference.format(all=len(rows), cats=len(rows) // 2)
    expected = (
        f"'{tmp_path}' has class folders (cat, dog) and review.{ending}, which {difference}. To use the table, pass "
        f"--dataset {table}; to use the class folders, move the table out of the dataset."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        find(tmp_path)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("columns", [("file", "label"), ("file", "label", "split")])
def test_a_table_that_says_the_same_as_class_folders_adds_its_splits(tmp_path, ending, columns):
    rows = [(*row, "test" if "004" in row[0] else "train")[: len(columns)] for row in with_classes(tmp_path)]
    write_table(tmp_path / f"table.{ending}", rows, columns)
    images = find(tmp_path)
    assert is_every_image_in_its_class(images)
    assert len(labels_of(images)) == 2 * COUNT
    assert (set(labels_of(images, "test")) == {"cat/004.png", "dog/004.png"}) == (len(columns) == 3)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_cannot_move_images_of_split_folders(tmp_path, ending):
    rows = []
    for split in ("train", "test"):
        rows += [(f"{split}/{path}", name, split) for path, name in with_classes(tmp_path / split)]
    write_table(tmp_path / f"table.{ending}", rows, ("file", "label", "split"))
    assert find(tmp_path).counts()["test"] == [COUNT, COUNT]
    moved = [(path, name, "train" if path == "test/cat/000.png" else split) for path, name, split in rows]
    write_table(tmp_path / f"table.{ending}", moved, ("file", "label", "split"))
    with pytest.raises(InputError, match="which puts 1 of their 20 images into another split"):
        find(tmp_path)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("columns", [("vector", "score"), ("file", "label")])
def test_a_foreign_table_beside_class_folders_does_not_block_them(tmp_path, ending, columns):
    with_classes(tmp_path)
    write_table(tmp_path / f"songs.{ending}", [("a.mp3", "rock"), ("b.mp3", "jazz")], columns)
    images = find(tmp_path)
    assert is_every_image_in_its_class(images)
    reason = "table without images and labels" if columns[0] == "vector" else "table that names none of the images"
    assert images.left_out == {reason: [f"songs.{ending}"]}


def test_parquet_files_with_images_beside_class_folders_are_refused(tmp_path):
    rows = with_classes(tmp_path)
    content = [((tmp_path / path).read_bytes(), label) for path, label in rows]
    write_table(tmp_path / "images.parquet", content, ("image", "label"))
    with pytest.raises(InputError, match="which holds images with labels of their own"):
        find(tmp_path)
    assert len(labels_of_rows(find(tmp_path / "images.parquet"))) == 2 * COUNT


def labels_of_rows(images):
    return [label for rows in images.parts.values() for label in rows["label"][:]]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("name", "prefix"), [("labels", ""), ("train", "./"), ("metadata", "train/"), ("_a", "")])
def test_a_table_beside_the_images_of_a_split_folder(tmp_path, ending, name, prefix):
    rows = write_flat(tmp_path / "train")
    write_table(tmp_path / "train" / f"{name}.{ending}", [(prefix + path, label) for path, label in rows])
    unlabelled = write_flat(tmp_path / "test", first=100)
    images = find(tmp_path)
    assert labels_of(images) == {f"train/{path}": label for path, label in rows}
    assert images.source == f"local folder {tmp_path} (labels: train/{name}.{ending}, column 'label')"
    assert images.left_out == {"image that no table names": sorted(f"test/{path}" for path, _ in unlabelled)}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("split", [True, False])
def test_one_table_per_split_folder_or_one_for_all(tmp_path, ending, split):
    rows = {name: write_flat(tmp_path / name, first=first) for name, first in (("train", 0), ("test", 50))}
    if split:
        for name, some in rows.items():
            write_table(tmp_path / name / f"metadata.{ending}", some)
    else:
        some = [(f"{name}/{path}", label, name) for name, found in rows.items() for path, label in found]
        write_table(tmp_path / f"labels.{ending}", some, ("file", "label", "part"))
    images = find(tmp_path)
    assert labels_of(images, "test") == {f"test/{path}": label for path, label in rows["test"]}
    assert labels_of(images, "train", "validation") == {f"train/{path}": label for path, label in rows["train"]}


@pytest.mark.parametrize("place", ["train", "images", "images/all"])
@pytest.mark.parametrize("strip", [str, lambda path: path.removesuffix(".png")])
def test_names_and_ids_are_found_in_the_folders_below_the_table(tmp_path, place, strip):
    rows = write_flat(tmp_path / place)
    write_table(tmp_path / "labels.csv", [(strip(path), label) for path, label in rows], ("id", "label"))
    images = find(tmp_path)
    assert labels_of(images) == {f"{place.split('/')[-1]}/{path}": label for path, label in rows}


def test_an_id_that_several_images_have_is_refused(tmp_path):
    rows = write_flat(tmp_path / "one")
    write_flat(tmp_path / "two")
    (tmp_path / "two").rename(tmp_path / "one" / "two")
    write_table(tmp_path / "labels.csv", [(path.removesuffix(".png"), label) for path, label in rows], ("id", "label"))
    with pytest.raises(InputError, match=r"names 'cat-0', and 2 images have this name: .*cat-0.png, .*cat-0.png"):
        find(tmp_path)


def test_images_that_no_table_names_are_left_out_with_their_names(tmp_path):
    rows = write_flat(tmp_path / "images", count=10)
    write_table(tmp_path / "labels.csv", [(f"images/{path}", label) for path, label in rows[::2]])
    for place in (tmp_path, tmp_path / "labels.csv"):
        images = find(place)
        assert images.left_out == {"image that no table names": sorted(f"images/{path}" for path, _ in rows[1::2])}
        assert len(labels_of(images)) == 10


def test_the_first_of_several_tables_is_not_taken_in_silence(tmp_path):
    rows = write_flat(tmp_path)
    write_table(tmp_path / "a.csv", rows)
    write_table(tmp_path / "b.csv", [(path, "dog") for path, _ in rows])
    with pytest.raises(InputError, match=r"has several tables: a.csv, b.csv. Pass one of them as --dataset, or name"):
        find(tmp_path)
    (tmp_path / "a.csv").rename(tmp_path / "metadata.csv")
    images = find(tmp_path)
    assert is_every_image_in_its_class(images) or set(labels_of(images).values()) == set(NAMES)
    assert images.left_out == {"table that is not used": ["b.csv"]}


def test_a_table_with_columns_of_other_names_is_not_called_an_empty_folder(tmp_path):
    rows = write_flat(tmp_path / "train")
    write_table(tmp_path / "train" / "labels.csv", rows, ("scan", "diagnosis"))
    with pytest.raises(InputError, match="has no image column; its columns: scan, diagnosis"):
        find(tmp_path)
    assert len(labels_of(find(tmp_path, image_column="scan", label_column="diagnosis"))) == 2 * COUNT


def test_a_spreadsheet_beside_images_is_named(tmp_path):
    write_flat(tmp_path / "train")
    (tmp_path / "train" / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="the spreadsheet labels"):
        find(tmp_path)


def test_all_splits_of_a_table_are_evaluated_together(tmp_path):
    rows = [(path, label, "test" if "-4" in path else "train") for path, label in write_flat(tmp_path)]
    write_table(tmp_path / "labels.csv", rows, ("file", "label", "split"))
    data = DataArguments(dataset=str(tmp_path), classes=["cat", "dog"])
    assert load_images(data, seed=0, whole=True).counts() == {"all": [COUNT, COUNT]}


def test_a_split_column_needs_a_table(tmp_path):
    with_classes(tmp_path)
    with pytest.raises(InputError, match="--split_column applies to tables, and"):
        find(tmp_path, split_column="part")


def test_a_group_column_needs_a_table(tmp_path):
    write_images(tmp_path, count=4)
    with pytest.raises(InputError, match=r"--group_column applies to tables, and .* Or group images by"):
        find(tmp_path, group_column="patient")
    rows = [(f"{name}/{number:03}.png", name, f"{name}{number // 2}") for name in NAMES for number in range(4)]
    pd.DataFrame(rows, columns=["file", "label", "patient"]).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match="be divided"):  # two groups of each class are too few for three parts
        find(tmp_path, group_column="patient")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# written by R\nfile,label\n", "has no image column; its columns: # written by R"),
        ("file|label\n", "has no image column; its columns: file|label. Pass one of them as --image_column"),
        ("image,choice\n", "has no label column; its columns: image, choice. Pass one of them as --label_column"),
    ],
)
def test_a_table_that_cannot_be_used_beside_the_folder_of_its_images_is_named(tmp_path, content, message):
    write_images(tmp_path, names=["images"])
    (tmp_path / "labels.csv").write_text(content + "1.png,cat\n")
    with pytest.raises(InputError, match=re.escape(f"labels.csv' {message}")):
        find(tmp_path)


def test_a_table_of_predict_is_known_whatever_the_capitals():
    assert is_own_output(["Path", " Predicted_Label", "PROBABILITY", "label"])
