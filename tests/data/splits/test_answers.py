"""Tables of corrected labels: what they change, and lines that cannot be used."""

import re

import numpy as np
import pytest

from helpers.image_folders import draw, find, labels_of, write_images
from helpers.images import make_dataset
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError


@pytest.fixture
def own(tmp_path):
    """A folder with the splits train and test: rows 0 to 9 are cats, and 10 to 19 dogs."""
    for split, first in (("train", 0), ("test", 40)):
        write_images(tmp_path / "photos" / split, first=first)
    return tmp_path / "photos"


def answered(place, *lines, header="file,label", encoding="utf-8", **settings):
    file = place.parent / "corrected.csv"
    file.write_text("\n".join([header, *lines, ""]), encoding=encoding)
    return find(place, labels=str(file), **settings)


def test_labels_are_changed_and_images_left_out_in_every_part_without_dividing_the_others_anew(own):
    before = find(own)
    lines = ["train/cat/003.png,dog", "train/cat/004.png,", "test/dog/044.png,cat", "test/dog/045.png,?"]
    after = answered(own, *lines, "train/cat/005.png,cat")
    found = labels_of(before) | {"cat/003.png": "dog", "dog/044.png": "cat"}
    assert labels_of(after) == {name: of for name, of in found.items() if name not in ("cat/004.png", "dog/045.png")}
    for part in before.parts:
        assert {*after.parts[part]["index"][:]} <= {*before.parts[part]["index"][:]}
    assert after.left_out == {"left out by --labels": ["train/cat/004.png", "test/dog/045.png"]}
    assert after.edits.labels == {"train": {3: "dog", 4: ""}, "test": {14: "cat", 15: ""}}
    assert after.division == (
        f"{before.division} 2 labels were changed (1 train, 1 test) and 2 images were left out (1 train, 1 test), as "
        "corrected.csv says."
    )
    # Which images each part has is compared by the labels of the dataset, so a model finds its images again.
    assert after.membership == before.membership


def test_corrected_labels_change_the_fingerprints(own):
    from hfprobe.models.simple_cnn.modeling import IMAGE_SIZE, build_processor

    before, after = (
        images.decode("train", "test", processor=build_processor(IMAGE_SIZE))
        for images in (find(own), answered(own, "train/cat/003.png,dog", "test/dog/044.png,cat"))
    )
    assert before.train.fingerprint != after.train.fingerprint
    assert before.test.fingerprint != after.test.fingerprint
    assert before.test.images_fingerprint == after.test.images_fingerprint


def test_a_table_that_agrees_with_every_label_says_so(own):
    images = answered(own, "train/cat/003.png,cat")
    assert images.division.endswith(" No label was changed, as corrected.csv says.")
    assert images.edits.labels == {}


@pytest.mark.parametrize(
    ("header", "line", "encoding"),
    [
        (
            "split,row,file,label,given,suggested,probability_given",
            "train,3,train/cat/003.png,dog,cat,dog,0.1",
            "utf-8",
        ),
        ("Split;Row;File;Label", "train;3;;dog", "utf-8-sig"),
        ("label\tfile", '"dog"\ttrain\\cat\\003.png', "utf-16"),
        ("split,row,label", "train,3.0,dog", "cp1252"),
    ],
)
def test_tables_of_spreadsheets_are_read(own, header, line, encoding):
    assert answered(own, line, header=header, encoding=encoding).edits.labels == {"train": {3: "dog"}}


def test_an_absolute_path_names_an_image(own):
    assert answered(own, f"{own}/train/cat/003.png,dog").edits.labels == {"train": {3: "dog"}}


def test_the_apostrophe_before_a_formula_is_removed(tmp_path):
    names = ["=cat", "'dog"]
    photos = write_images(tmp_path / "photos", names=names)
    images = answered(photos, "'=cat/001.png,''dog", "''dog/002.png,'=cat")
    assert images.edits.labels == {"train": {11: "'dog", 2: "=cat"}}


def test_whole_numbers_are_classes_however_they_are_written(tmp_path):
    photos = write_images(tmp_path / "photos", names=["0", "1"])
    assert answered(photos, "0/001.png,1.0").edits.labels == {"train": {1: "1"}}


def test_a_class_may_be_named_like_a_missing_label(tmp_path):
    photos = write_images(tmp_path / "photos", names=["nan", "cat"])
    assert answered(photos, "cat/001.png,nan").edits.labels == {"train": {1: "nan"}}


def test_images_that_leave_and_enter_the_chosen_classes(tmp_path):
    photos = write_images(tmp_path / "photos" / "train", names=["cat", "dog", "owl"]).parent
    write_images(photos / "test", names=["cat", "dog", "owl"], first=50)
    lines = ["train/cat/001.png,owl", "train/owl/002.png,dog", "test/owl/053.png,cat"]
    images = answered(photos, *lines, classes=["cat", "dog"])
    found = labels_of(images)
    assert found["owl/002.png"] == "dog"
    assert labels_of(images, "test")["owl/053.png"] == "cat"
    assert "cat/001.png" not in found
    assert len(found) == 40 + 2 - 1
    assert images.left_out["left out by --labels"] == ["train/cat/001.png"]
    assert images.left_out["class that is not among --classes"] == ["9 train images (owl 9)", "9 test images (owl 9)"]


def test_an_image_without_a_label_gets_one(tmp_path):
    photos = write_images(tmp_path / "photos")
    rows = [f"{name}/{number:03}.png,{name if number else ''}" for name in ("cat", "dog") for number in range(10)]
    table = photos / "labels.csv"
    table.write_text("\n".join(["file,label", *rows]))
    (tmp_path / "corrected.csv").write_text("file,label\ncat/000.png,dog\n")
    images = find(table, labels=str(tmp_path / "corrected.csv"))
    assert labels_of(images)["cat/000.png"] == "dog"
    assert images.left_out["without a label"] == ["1 train image"]


def test_images_without_files_are_named_by_split_and_row(tmp_path):
    (tmp_path / "corrected.csv").write_text("split,row,label\ntest,1,cat\n")
    make_dataset(train=50, test=10).save_to_disk(tmp_path / "data")
    images = load_images(DataArguments(dataset=str(tmp_path / "data"), labels=str(tmp_path / "corrected.csv")), seed=0)
    assert np.asarray(images.parts["test"]["label"][:])[:3].tolist() == [0, 3, 2]


def test_images_of_a_whole_dataset_are_corrected_too(own):
    (own.parent / "corrected.csv").write_text("file,label\ntest/cat/043.png,dog\ntrain/dog/001.png,\n")
    data = DataArguments(dataset=str(own), labels=str(own.parent / "corrected.csv"))
    images = load_images(data, seed=0, whole=True)
    found = labels_of(images)
    assert (len(found), found["cat/043.png"]) == (39, "dog")
    assert images.division == (
        "The images of all splits are evaluated. 1 label was changed (1 test) and 1 image was left out (1 train), as "
        "corrected.csv says."
    )


BAD = {
    "no such file": (
        ["train/cat/999.png,dog"],
        "Line 2 of '{file}' names the file 'train/cat/999.png', which '{place}' does not have. Write the path below "
        "the dataset, or remove the line.",
    ),
    "no class": (
        ["", "train/cat/003.png,dgo"],
        "Line 3 of '{file}' has the label 'dgo', which is no class of the dataset. Did you mean dog? Allowed: cat, "
        "dog; an empty cell or ? leaves the image out.",
    ),
    "two answers": (
        ["train/cat/003.png,dog", "train/cat/003.png,cat"],
        "Lines 2 and 3 of '{file}' give one image two labels, 'dog' and 'cat'. Remove one of them.",
    ),
    "no name": ([",dog"], "Line 2 of '{file}' names no image. Write its file, or its split and its row."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_line_that_cannot_be_used_is_named(own, case):
    lines, expected = BAD[case]
    expected = expected.format(file=own.parent / "corrected.csv", place=own)
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        answered(own, *lines)


ROWS = {
    "split": ("dev,3,,dog", "names the split 'dev'; '{place}' has train, test. Correct or remove the line."),
    "row": ("train,20,,dog", "names row 20 of 'train'; allowed: 0 to 19. Correct or remove the line."),
    "no number": ("train,x,,dog", "names row x of 'train'; allowed: 0 to 19. Correct or remove the line."),
    "other file": (
        "train,3,train/cat/004.png,dog",
        "names 'train/cat/004.png', and row 3 of 'train' is 'train/cat/003.png': the table is of other images, or the "
        "images have changed. Correct or remove the line.",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_that_does_not_exist_is_named(own, case):
    line, expected = ROWS[case]
    expected = f"Line 2 of '{own.parent / 'corrected.csv'}' {expected.format(place=own)}"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        answered(own, line, header="split,row,file,label")


@pytest.mark.parametrize(
    ("header", "lacking"), [("file,class", "label"), ("label,row", "file"), ("label,path", "file")]
)
def test_a_table_without_a_column_is_refused(own, header, lacking):
    expected = (
        f"'{own.parent / 'corrected.csv'}' has no column '{lacking}'; its columns: {header.replace(',', ', ')}. "
        "Allowed: label and file, or label, split and row."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        answered(own, "a,b", header=header)


def test_a_column_that_occurs_twice_and_a_file_that_does_not_exist_are_refused(own):
    with pytest.raises(InputError, match="'label' is the name of several columns in"):
        answered(own, "train/cat/003.png,dog,cat", header="file,label,label")
    missing = own.parent / "none.csv"
    expected = (
        f"--labels '{missing}' is not a file. Pass a table with the columns file and label, such as the labels.csv of "
        "hfprobe audit."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        find(own, labels=str(missing))


def test_a_file_name_of_several_images_needs_the_split_and_the_row(tmp_path):
    import datasets

    for split in ("train", "test"):
        rows = {"image": [{"path": f"{n}.png", "bytes": draw_bytes(n)} for n in range(10)], "label": [0, 1] * 5}
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "photos" / f"{split}.parquet")
    expected = (
        f"Line 2 of '{tmp_path / 'corrected.csv'}' names '3.png', and 2 images of '{tmp_path / 'photos'}' have this "
        "name. Write the split and the row too."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        answered(tmp_path / "photos", "3.png,cat")
    assert answered(tmp_path / "photos", "test,3,3.png,cat", header="split,row,file,label").edits.labels == {
        "test": {3: "cat"}
    }


def draw_bytes(number):
    from io import BytesIO

    buffer = BytesIO()
    draw(number, number % 2).save(buffer, format="PNG")
    return buffer.getvalue()
