"""Columns that divide the rows of a table into splits."""

import datasets
import pandas as pd
import pytest

from helpers.image_folders import NAMES, find, labels_of, write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.split_columns import split_by_column
from hfprobe.system.errors import InputError


def split(columns, *, whole=False, **flags):
    found = split_by_column(columns, DataArguments(**flags), what="'labels.csv'", whole=whole)
    return None if found is None else found[1]


@pytest.mark.parametrize(
    "name", ["split", "data set", "Set", "subset", "data_split", "Usage", "phase", "fold", "partition", "anything"]
)
def test_a_column_whose_values_are_names_of_splits_divides_the_rows(name):
    assert split({"note": ["a", "b", "c"], name: ["train", "Test", "valid"]}) == ["train", "Test", "valid"]


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("1.0", "0.0"), ("yes", "No")])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("is_valid", ["validation", "train"]),
        ("is_test", ["test", "train"]),
        ("is_train", ["train", "test"]),
        ("Is Validation", ["validation", "train"]),
    ],
)
def test_columns_of_yes_and_no_divide_the_rows(name, expected, yes, no):
    assert split({name: [yes, no]}) == expected


def test_two_columns_of_yes_and_no_are_read_together():
    columns = {"is_valid": ["1", "0", "0"], "is_test": ["0", "1", "0"]}
    assert split(columns) == ["validation", "test", "train"]
    assert split({"is_train": ["1", "0", "0"], "is_valid": ["0", "1", "0"]}) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    "columns",
    [
        {"set": ["blue", "red"]},
        {"set": ["1", "2"]},
        {"fold": ["0", "4"]},
        {"is_valid": ["maybe", "1"]},
        {"set": ["", ""]},
    ],
)
def test_a_column_of_another_meaning_does_not_divide_the_rows(columns):
    assert split(columns) is None


def test_values_that_name_no_split_are_refused_beside_those_that_do():
    columns = {"Usage": ["Training", "PublicTest", "PrivateTest", ""]}
    message = "Column 'Usage' of 'labels.csv' has values that name no split: '', 'P"
    with pytest.raises(InputError, match=message):
        split(columns)
    flags = {"validation_split": "PublicTest", "test_split": "PrivateTest"}
    assert split({"Usage": columns["Usage"][:3]}, **flags) == columns["Usage"][:3]
    assert split(columns, whole=True) == columns["Usage"]


def test_two_columns_that_divide_the_rows_differently_are_refused():
    columns = {"split": ["train", "test"], "part": ["test", "train"]}
    with pytest.raises(InputError, match="Columns 'split' and 'part' of 'labels"):
        split(columns)
    assert split(columns, split_column="part") == ["test", "train"]
    assert split({"split": ["train", "val"], "part": ["Training", "valid"]}) == ["train", "val"]


def test_a_flag_names_the_column():
    columns = {"role": ["train", "test", "other"], "split": ["a", "b", "c"]}
    with pytest.raises(InputError, match="has no column 'rôle'; its other columns: role, split"):
        split(columns, split_column="rôle")
    assert split(columns, split_column="split", train_split="a", test_split="b", validation_split="c") == [
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "paths.parquet", "images.parquet", "saved"])
@pytest.mark.parametrize("column", ["data set", "is_test"])
def test_every_kind_of_table_is_divided(tmp_path, kind, column):
    write_images(tmp_path / "images", count=5)
    values = {"data set": ("test", "train"), "is_test": (True, False)}[column]
    rows = [(f"images/{name}/{number:03}.png", name, values[number < 4]) for name in NAMES for number in range(5)]
    table = pd.DataFrame(rows, columns=["image", "label", column])
    if kind in ("images.parquet", "saved"):
        table["image"] = [{"bytes": (tmp_path / path).read_bytes(), "path": path} for path in table["image"]]
    place = tmp_path / f"table.{kind.split('.')[-1]}"
    if kind == "saved":
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.Value("string"), column: datasets.Value("string")}
        )
        table[column] = table[column].astype(str)
        datasets.Dataset.from_dict(table.to_dict("list"), features=features).save_to_disk(place)
    elif kind == "csv":
        table.to_csv(place, index=False)
    elif kind == "jsonl":
        table.to_json(place, orient="records", lines=True)
    else:
        table.to_parquet(place)
    images = find(place)
    assert images.counts()["test"] == [1, 1]
    if kind != "saved":  # which keeps the name of a file without its folder
        assert set(labels_of(images, "test")) == {"cat/004.png", "dog/004.png"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"test": ["1", "0"]}, ["test", "train"]),
        ({"Train": ["1", "0"]}, ["train", "test"]),
        ({"is_training_image": ["1", "0"]}, ["train", "test"]),
        ({"train": ["1", "0", "0"], "val": ["0", "1", "0"], "test": ["0", "0", "1"]}, ["train", "val", "test"]),
        ({"valid": ["1", "0"]}, None),  # may mean that an image can be used
        ({"test_1": ["1", "0"]}, None),
    ],
)
def test_columns_of_yes_and_no_may_have_the_name_of_a_split_alone(columns, expected):
    expected = expected and ["validation" if name == "val" else name for name in expected]
    assert split(columns) == expected


def test_a_row_in_none_of_the_splits_is_refused():
    with pytest.raises(InputError, match="has values that name no split: ''"):
        split({"train": ["1", "0", "0"], "test": ["0", "1", "0"]})


@pytest.mark.parametrize("values", [["trn", "tst"], ["0", "1", "2"], ["prueba", "entrenamiento"]])
def test_a_column_named_split_with_unknown_values_is_not_ignored(tmp_path, values):
    write_images(tmp_path / "images", count=6)
    rows = [
        (f"images/{name}/{number:03}.png", name, values[number % len(values)]) for name in NAMES for number in range(6)
    ]
    pd.DataFrame(rows, columns=["image", "label", "Split"]).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match=r"has no training split; its splits: .* Pass --train_split"):
        find(tmp_path / "labels.csv")


def test_one_value_for_all_images_in_a_column_of_another_name_is_no_split():
    assert split({"quality": ["valid", "valid"]}) is None
    assert split({"split": ["test", "test"]}) == ["test", "test"]


def test_the_log_names_the_column(caplog):
    with caplog.at_level("INFO"):
        split({"stage": ["train", "test"]})
    assert "Column 'stage' of 'labels.csv' divides the rows into splits." in caplog.messages
