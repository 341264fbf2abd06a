"""Rows of tables: every image once, with one class, in one split."""

import json
import re

import pandas as pd
import pytest

from helpers.image_folders import NAMES, draw, find, labels_of
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError

COUNT = 5


@pytest.fixture
def rows(tmp_path):
    """Images directly in a folder, and their rows."""
    for label, name in enumerate(NAMES):
        for number in range(COUNT):
            draw(number, label).save(tmp_path / f"{name}-{number}.png")
    return [(f"{name}-{number}.png", name) for name in NAMES for number in range(COUNT)]


def write(folder, rows, columns=("file", "label"), name="labels.csv"):
    pd.DataFrame(rows, columns=list(columns)).to_csv(folder / name, index=False)
    return folder / name


@pytest.mark.parametrize("again", ["cat-0.png", "./cat-0.png", "link.png", "../{folder}/cat-0.png", "{path}/cat-0.png"])
def test_a_repeated_row_counts_once_and_a_contradiction_is_refused(tmp_path, rows, again):
    again = again.format(folder=tmp_path.name, path=tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "cat-0.png")
    images = find(write(tmp_path, [*rows, (again, "cat")]))
    assert sum(map(sum, images.counts().values())) == 2 * COUNT
    assert images.left_out["row that repeats an image"] == ["link.png" if "link" in again else "cat-0.png"]
    table = write(tmp_path, [*rows, (again, "dog")])
    with pytest.raises(InputError) as raised:
        find(table)
    assert re.fullmatch(
        r"An image has more than one class: '.*cat-0.png' has class 'cat' \(labels.csv, line 2\) and 'dog' "
        r"\(labels.csv, line 12\). Correct the rows so that each image has one class.",
        str(raised.value),
    )


@pytest.mark.parametrize("how", ["column", "tables"])
def test_an_image_in_two_splits_is_refused(tmp_path, rows, how):
    if how == "column":
        place = write(tmp_path, [*((*row, "train") for row in rows), (*rows[0], "test")], ("file", "label", "split"))
    else:
        write(tmp_path, rows, name="train.csv")
        write(tmp_path, rows[:2], name="test.csv")
        place = tmp_path
    with pytest.raises(InputError, match=r"more than one split: '.*cat-0.png' has split 't.*, line 2\) and 't"):
        find(place)


def test_rows_that_name_a_split_in_two_ways_are_repeats(tmp_path, rows):
    divided = [(*row, "test" if "-4" in row[0] else "train") for row in rows]
    table = write(tmp_path, [*divided, (*rows[0], "Training")], ("file", "label", "split"))
    assert find(table).counts()["test"] == [1, 1]


def test_an_image_in_two_groups_is_refused(tmp_path, rows):
    table = write(tmp_path, [*((*row, row[0][-5]) for row in rows), (*rows[0], "9")], ("file", "label", "patient"))
    with pytest.raises(InputError, match=r"more than one group: '.*' has group '0' .* and '9'"):
        find(table, group_column="patient")


@pytest.mark.parametrize(
    ("cells", "classes", "unlabelled"),
    [
        (["2", "10", "2", "10"], ["2", "10"], 0),
        (["0.0", "1.0", "", "1.0"], ["0", "1"], 1),
        (["0", "1", "-1", "0"], ["0", "1"], 1),
        (["0", "1", "nan", "1"], ["0", "1"], 1),
        (["cat ", " cat", "dog", "dog"], ["cat", "dog"], 0),
        (["01", "1", "01", "1"], ["01", "1"], 0),
        (["none", "NA", "none", "NA"], ["NA", "none"], 0),
    ],
)
def test_cells_become_classes(tmp_path, cells, classes, unlabelled):
    rows = []
    for number in range(20):
        draw(number, 0).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", cells[number % 4]))
    images = find(write(tmp_path, rows))
    assert images.class_names == classes
    assert sum(map(sum, images.counts().values())) == 20 - 5 * unlabelled
    assert images.left_out == ({"without a label": ["5 train images"]} if unlabelled else {})


@pytest.mark.parametrize("flag", [{}, {"label_column": "cat"}])
def test_one_column_per_class(tmp_path, rows, flag):
    one_hot = [(path, int(name == "cat"), int(name == "dog"), 0) for path, name in rows]
    write(tmp_path, one_hot, ("filename", " cat", " dog", " fox"), name="_classes.csv")
    if flag:
        with pytest.raises(InputError, match="one column per class, cat, dog, fox, and 'cat' is one of them"):
            find(tmp_path, **flag)
    else:
        images = find(tmp_path)
        assert {name.split("/")[-1]: label for name, label in labels_of(images).items()} == dict(rows)
        assert images.source.endswith("(labels: _classes.csv, one column per class)")


def test_a_column_of_0_and_1_can_be_the_label_where_several_may_be_1(tmp_path, rows):
    attributes = [(path, int(name == "cat"), number % 2) for number, (path, name) in enumerate(rows)]
    images = find(write(tmp_path, attributes, ("file", "furry", "young")), label_column="furry")
    assert images.class_names == ["0", "1"]


def test_a_column_of_images_that_occurs_twice_is_refused(tmp_path, rows):
    table = write(tmp_path, [(*row, "x") for row in rows], ("file", "label", "label"))
    with pytest.raises(InputError, match="'label' is the name of several columns in"):
        find(table)


def test_paths_of_windows_are_read(tmp_path, rows):
    (tmp_path / "deep").mkdir()
    for path, _ in rows:
        (tmp_path / path).rename(tmp_path / "deep" / path)
    images = find(write(tmp_path, [(f"deep\\{path}", name) for path, name in rows]))
    assert labels_of(images) == {f"deep/{path}": name for path, name in rows}


def test_labels_that_are_lists_are_refused(tmp_path, rows):
    lines = [json.dumps({"file_name": path, "label": [name, "grey"], "boxes": []}) for path, name in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"'label' holds lists or objects in '.*metadata.jsonl'; allowed: one column"):
        find(tmp_path)


@pytest.mark.parametrize("whole_table", [True, False])
def test_without_a_column_of_splits_an_image_is_in_the_split_whose_folder_holds_it(tmp_path, rows, whole_table):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    named = []
    for path, name in rows:
        split = "test" if "-4" in path else "train"
        (tmp_path / path).rename(tmp_path / split / path)
        named.append((f"{split}/{path}", name))
    table = write(tmp_path, named)
    images = find(table if whole_table else tmp_path)
    assert set(labels_of(images, "test")) == {"test/cat-4.png", "test/dog-4.png"}
    draw(99, 0).save(tmp_path / "more.png")
    write(tmp_path, [*named, ("more.png", "cat")])
    expected = r"split folders \('train/cat-0.png'\) and outside of them \('more.png'\), so the splits are unclear"
    with pytest.raises(InputError, match=expected):
        find(tmp_path)


def test_a_class_that_is_named_like_a_split_is_no_split_of_a_table(tmp_path, rows):
    for path, name in rows:
        (tmp_path / "all" / ("train" if name == "cat" else "bus")).mkdir(parents=True, exist_ok=True)
        (tmp_path / path).rename(tmp_path / "all" / ("train" if name == "cat" else "bus") / path)
    named = [(f"{label}/{path}", label) for path, name in rows for label in ["train" if name == "cat" else "bus"]]
    assert find(write(tmp_path / "all", named)).class_names == ["bus", "train"]


@pytest.mark.parametrize("place", ["", "csv/", "elsewhere/deep/"])
@pytest.mark.parametrize("split_of", [{True: "train", False: "test"}, {True: "Training", False: "val2017"}])
def test_split_folders_are_found_at_any_depth_and_beside_the_table(tmp_path, rows, split_of, place):
    named = []
    for path, name in rows:
        inside = tmp_path / "images" / split_of["-4" not in path] / path
        inside.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).rename(inside)
        named.append((f"{'../' * place.count('/')}{inside.relative_to(tmp_path)}", name))
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    images = find(write(tmp_path / place, named))
    part = "test" if "test" in split_of.values() else "validation"
    assert {name.split("/")[-1] for name in labels_of(images, part)} == {"cat-4.png", "dog-4.png"}


def test_a_folder_that_all_images_share_outside_the_dataset_is_no_split(tmp_path, rows):
    (tmp_path / "test" / "csv").mkdir(parents=True)
    for path, _ in rows:
        (tmp_path / path).rename(tmp_path / "test" / path)
    table = write(tmp_path / "test" / "csv", [(f"../{path}", name) for path, name in rows])
    assert sum(map(sum, find(table).counts().values())) == 2 * COUNT


def test_all_images_are_evaluated_together_where_only_some_are_in_split_folders(tmp_path, rows):
    (tmp_path / "train").mkdir()
    (tmp_path / "cat-0.png").rename(tmp_path / "train" / "cat-0.png")
    table = write(tmp_path, [("train/cat-0.png", "cat"), *rows[1:]])
    assert load_images(DataArguments(dataset=str(table)), seed=0, whole=True).counts() == {"all": [COUNT, COUNT]}


@pytest.mark.parametrize(("columns", "split"), [(["is_valid"], "validation"), (["train", "test"], "test")])
def test_columns_of_splits_beside_one_column_per_class(tmp_path, rows, columns, split):
    cells = [
        (path, int(name == "cat"), int(name == "dog"), *[int(("-4" in path) != (one == "train")) for one in columns])
        for path, name in rows
    ]
    images = find(write(tmp_path, cells, ("file", "cat", "dog", *columns)))
    assert (images.class_names, images.counts()[split]) == (NAMES, [1, 1])
    with pytest.raises(InputError, match="has no label column"):
        find(write(tmp_path, [(row[0], *row[3:]) for row in cells], ("file", *columns)))


def test_classes_of_one_column_each_may_be_named_like_splits(tmp_path, rows):
    cells = [(path, int(name == "cat"), int(name == "dog")) for path, name in rows]
    assert find(write(tmp_path, cells, ("file", "train", "bus"))).class_names == ["bus", "train"]
