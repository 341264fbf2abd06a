"""Images that belong together: how they are found, and ways that find nothing."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from helpers.image_folders import write_images
from helpers.rows import make_rows
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import standard_columns
from hfprobe.data.splits.division import divide
from hfprobe.data.splits.groups import find_groups, find_prefix
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("IMG-12_001", "IMG-12"),
        ("clip3.0004", "clip3"),
        ("clip3 0004", "clip3"),
        ("clip3 - 0004", "clip3"),
        ("clip3-f4", "clip3"),
        ("clip3f004", "clip3"),
        ("video3frame004", "video3"),
        ("video3_Frame_004", "video3"),
        ("clip3_0004_jpg.rf.0a1b2c3d", "clip3"),
        ("clip3_mp4-12_jpg.rf.AbCz9", "clip3_mp4"),
        ("clip3_0004_png", "clip3"),
        ("cat_12_crop3", "cat_12"),
        ("leaf004", "leaf"),  # the f is of a longer word
        ("beach (1)", "beach"),
        ("IMG-12_left", "IMG-12"),
        ("cut", "cut"),
        ("img0001", "img"),
        ("IMG_0001", "IMG"),
        ("0001", ""),
        ("vid\u00e9o3_004", "vid\u00e9o3"),
    ],
)
def test_the_prefix_is_the_name_before_the_number_of_the_frame(name, group):
    assert find_prefix(name) == group


def photos(*names):
    """Rows of two classes, alternating, with these file names."""
    labels = [number % 2 for number in range(len(names))]
    paths = [f"photos/class{label}/{name}" for label, name in zip(labels, names, strict=True)]
    return make_rows(labels, paths=paths)


def divided(rows, **settings):
    return divide({"train": rows} if not isinstance(rows, dict) else rows, DataArguments("photos", **settings), seed=0)


FRAMES = {
    "dots": "clip{clip}.{frame:04}.png",
    "words": "video{clip}frame{frame:03}.png",
    "roboflow": "clip{clip}_{frame:04}_jpg.rf.{frame:08x}.jpg",
    "spaces": "clip{clip} ({frame}).jpg",
}


@pytest.mark.parametrize("name", FRAMES.values(), ids=FRAMES)
def test_frames_of_one_video_are_in_one_split_and_the_groups_are_counted(name):
    names = [name.format(clip=number // 10, frame=number % 10) for number in range(100)]
    parts, division = divided(photos(*names), group_by="prefix")
    clips = [{index // 10 for index in part.rows["index"][:]} for part in parts.values()]
    assert sum(map(len, clips)) == len(set.union(*clips)) == 10
    group = find_prefix(names[0].rsplit(".", 1)[0])
    assert division.endswith(
        "each group in one split. 100 images in 10 groups of 10 images (--group_by prefix; "
        f"class0/{names[0]} is of group '{group}')."
    )


def test_groups_of_different_sizes_are_counted_over_all_splits():
    names = {"train": ["a1", "a2", "a3", "a4", "b1", "b2"], "validation": ["c1", "c2"], "test": ["d1", "d2"]}
    kept = {split: photos(*found) for split, found in names.items()}
    assert divided(kept, group_by="prefix")[1] == (
        "The train and validation and test images are those of the dataset. 10 images in 4 groups of 2 to 4 images "
        "(--group_by prefix; class0/a1 is of group 'a')."
    )


@pytest.mark.parametrize(
    ("settings", "flag", "path", "group"),
    [
        ({"group_by": "prefix"}, "--group_by prefix", "class0/{}_x.jpg", "{}"),
        ({"group_by": "folder"}, "--group_by folder", "class0/{}/x.jpg", "{}"),
        ({"group_regex": ".+"}, "--group_regex .+", "class0/{}.jpg", "class0/{}.jpg"),
    ],
)
def test_a_way_that_groups_nearly_nothing_is_refused(settings, flag, path, group):
    names = [chr(97 + number) for number in range(20)]
    paths = [f"photos/{path.format(name)}" for name in names]
    for last, alone, total in ((0, 20, 20), (1, 19, 21)):
        expected = (
            f"{flag} groups nothing: {alone} of {total} images are alone in their group, such as "
            f"{path.format('a')} of group '{group.format('a')}', {path.format('b')} of group '{group.format('b')}', "
        )
        with pytest.raises(InputError, match=f"^{re.escape(expected)}"):
            divided(make_rows([0] * total, paths=[*paths, *paths[20 - last :]]), **settings)
    three = [*paths, paths[-1], paths[-1]]  # share a group: more than a tenth
    assert find_groups({"train": make_rows([0] * 22, paths=three)}, DataArguments("photos", **settings))[1].startswith(
        "22 images in 20 groups of 1 to 3 images "
    )


def test_names_that_are_a_counter_alone_are_refused(tmp_path):
    expected = (
        "--group_by prefix puts all 4 images into one group, which cannot be divided: class0/img1.png of group 'img', "
        "class1/img2.png of group 'img', class0/img3.png of group 'img'. Pass a --group_regex that matches what is the "
        "same in the paths of images that belong together, pass --group_column, or leave --group_by out if each image "
        "stands alone."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        divided(photos("img1.png", "img2.png", "img3.png", "img4.png"), group_by="prefix")


def test_folders_as_groups_need_subfolders_and_prefixes_need_names():
    with pytest.raises(InputError, match="--group_by folder needs images in subfolders of their class folder"):
        divided(make_rows([0, 1] * 20), group_by="folder")
    rows = make_rows([0, 1] * 20).map(lambda row: {"image": {"path": None, "bytes": b"x"}})
    with pytest.raises(InputError, match="--group_by prefix needs the names of files, and images of dataset 'photos'"):
        divided(rows, group_by="prefix")


@pytest.mark.parametrize("one", ["validation", "train"])
def test_a_group_in_two_splits_of_the_dataset_is_refused(one):
    names = {"train": ["a1", "a2"], "validation": ["b1", "b2"], "test": ["c1", "c2"]}
    names["test"] += [f"{names[one][0][0]}7", "c4"]
    expected = f"1 groups have images both in {one} and in test: {names[one][0][0]}. Move each group into one split, or"
    with pytest.raises(InputError, match=re.escape(expected)):
        divided({split: photos(*found) for split, found in names.items()}, group_by="prefix")


def test_groups_of_one_image_in_a_column_change_nothing_and_that_is_said():
    rows = make_rows([0, 1] * 20, groups=[f"p{number}" for number in range(40)])
    assert divided(rows, group_column="patient")[1].endswith(
        " 40 images in 40 groups of 1 image (--group_column patient). Groups of one image change nothing."
    )


def test_images_without_a_value_in_the_column_are_counted_as_groups_of_one():
    groups = ["p1", "p1", "", "", "p2", "p2"]
    kept = {"train": make_rows([0, 1] * 3, groups=groups), "test": make_rows([0, 1] * 3, groups=[""] * 6)}
    assert find_groups(kept, DataArguments("d", group_column="patient"))[1] == (
        "12 images in 10 groups of 1 to 2 images (--group_column patient)."
    )


@pytest.mark.parametrize(
    ("expression", "groups"),
    [("clip([0-9]+)", 5), ("clip[0-9]+", 5), ("^([^/]+)/", 2), ("(?P<scene>day|night)", 2)],
)
def test_a_regular_expression_finds_groups_in_the_paths_below_the_dataset(tmp_path, expression, groups):
    folder = tmp_path / "clip99"  # not a part of the paths
    paths = [f"{folder}/c{n % 2}/{'day' if n % 3 else 'night'}/clip{n // 8}_{n}.png" for n in range(40)]
    folder.mkdir()
    found, sentence = find_groups(
        {"train": make_rows([n % 2 for n in range(40)], paths=paths)},
        DataArguments(dataset=str(folder), group_regex=expression),
    )
    assert len({*found["train"]}) == groups
    assert f"40 images in {groups} groups" in sentence


def test_paths_that_a_regular_expression_does_not_match_are_counted_and_named():
    expected = (
        "--group_regex clip([0-9]+) finds no group in 5 of 6 paths: class1/b.png, class0/c.png, class1/d.png and 2 "
        "more. It must match a part of every path below the dataset, such as train/cat/clip3_0004.png."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        divided(photos("clip1.png", "b.png", "c.png", "d.png", "e.png", "f.png"), group_regex="clip([0-9]+)")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"group_regex": "clip("},
            "--group_regex 'clip(' is not a regular expression: missing ), unterminated subpatt",
        ),
        ({"group_regex": ""}, "--group_regex '' matches an empty text, so it names no group. Pass an expression that"),
        ({"group_regex": "[0-9]*"}, "--group_regex '[0-9]*' matches an empty text, so it names no group."),
        ({"group_by": "folder", "group_column": "patient"}, "--group_column and --group_by both say which images bel"),
        ({"group_by": "folder", "group_regex": "x"}, "--group_by and --group_regex both say which images belong tog"),
    ],
)
def test_wrong_ways_to_group_are_refused(settings, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        DataArguments(dataset="d", **settings)


@pytest.mark.parametrize("kind", ["folder", "csv", "zip"])
def test_groups_by_regular_expression_in_folders_tables_and_zip_files(tmp_path, kind):
    photos = write_images(tmp_path / "photos", count=20)
    for name in ("cat", "dog"):
        for number in range(20):
            (photos / name / f"{number:03}.png").rename(photos / name / f"{number:03}-{number // 4}x.png")
    place = photos
    if kind == "csv":
        rows = [f"{file.relative_to(photos)},{file.parent.name}" for file in sorted(photos.rglob("*.png"))]
        place = photos / "table.csv"
        place.write_text("\n".join(["file,label", *rows]))
    elif kind == "zip":
        place = shutil.make_archive(tmp_path / "packed", "zip", photos)
    images = load_images(DataArguments(dataset=str(place), group_regex="^[a-z]+/[0-9]+-([0-9])x"), seed=0)
    assert (
        "40 images in 5 groups of 8 images (--group_regex ^[a-z]+/[0-9]+-([0-9])x; cat/000-0x.png is of group '0')"
        in (images.division)
    )


def test_numbers_of_groups_are_the_same_text_in_every_file(tmp_path):
    content = (write_images(tmp_path / "made", names=["cat"], count=1) / "cat" / "000.png").read_bytes()
    for name, visits in (("train", [1, 1, 2, 2, 3, 3]), ("test", [3.0, 4.0, 4.0, None, None, 5.0])):
        rows = pd.DataFrame({"image": [content] * 6, "label": ["cat", "dog"] * 3, "visit": visits})
        rows.to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"1 groups have images both in train and in test: 3\. Move each group"):
        load_images(DataArguments(dataset=str(tmp_path), group_column="visit"), seed=0)


def test_a_column_of_missing_numbers_makes_groups_of_their_own():
    rows = Dataset.from_dict({"image": [b"x"] * 3, "label": ["a", "b", "a"], "visit": [np.nan, 2.0, np.nan]})
    assert standard_columns(rows, data=DataArguments("d", group_column="visit"))["group"][:] == ["", "2", ""]
