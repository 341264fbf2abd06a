"""A model finds its images again, whatever has become of the audit and of the table of labels of its run."""

import re
import shutil
from pathlib import Path

import pytest

from helpers.audited import save_audit
from helpers.image_folders import NAMES, find, write_images
from helpers.models import cat_model, stamp
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.models.changes import find_changes
from hfprobe.models.own_images import load_images_of
from hfprobe.models.passport import Passport
from hfprobe.system.errors import InputError


def rows_of(images):
    return {name: [*zip(rows["index"][:], rows["label"][:], strict=True)] for name, rows in images.parts.items()}


def trained(images):
    """A model with the record of a run on these images."""
    model, _ = cat_model(labels=NAMES)
    values = {"images": images.arguments.identity(), "membership": images.membership, "edits": images.edits}
    stamp(model, dataset=images.arguments.dataset, split_seed=images.seed, **values)
    return model


@pytest.fixture
def made(tmp_path):
    """Drawn images with moved duplicates and corrected labels, and a model of them."""
    photos = write_images(tmp_path / "photos", count=20)
    plain = find(photos)
    rows = rows_of(plain)
    groups = [[("train", rows[part][n][0]) for part in rows] for n in range(3)]
    test = rows["test"][3][0]
    (tmp_path / "labels.csv").write_text(f"split,row,label\ntrain,{test},dog\ntrain,{rows['train'][5][0]},\n")
    settings = {"audit": save_audit(tmp_path / "audit", plain, *groups), "labels": str(tmp_path / "labels.csv")}
    images = load_images(DataArguments(dataset=str(photos), drop_leaks=True, **settings), seed=0)
    assert rows_of(images)["test"] != rows["test"]
    return images, trained(images)


@pytest.mark.parametrize("what", ["untouched", "removed", "rewritten"])
def test_the_audit_and_the_labels_of_a_run_are_not_read_again(made, tmp_path, what):
    images, model = made
    if what != "untouched":
        shutil.rmtree(tmp_path / "audit")
        (tmp_path / "labels.csv").unlink()
    if what == "rewritten":
        save_audit(tmp_path / "audit", images, [("train", row) for row in range(15)])
        (tmp_path / "labels.csv").write_text("file,label\ncat/001.png,dog\n")
    again = load_images_of(model)
    assert rows_of(again) == rows_of(images)
    assert (again.division, again.left_out, again.edits) == (images.division, images.left_out, images.edits)
    for split in ("validation", "test"):
        assert find_changes(Passport.of(model), again, split=split) == ""
    moved = Path(images.arguments.dataset).rename(tmp_path / "elsewhere")
    (tmp_path / "new").mkdir()
    moved = moved.rename(tmp_path / "new" / "photos")
    assert rows_of(load_images_of(model, dataset=str(moved))) == rows_of(images)


def test_a_passport_is_read_back_from_the_config_of_the_model(made):
    images, model = made
    assert Passport.of(model).edits == images.edits
    assert "edits" not in Passport.of(model).summary()


def test_another_table_of_labels_corrects_the_images_of_a_model_that_was_trained_before(made, tmp_path):
    images, model = made
    (tmp_path / "new.csv").write_text("file,label\ncat/001.png,dog\n")
    again = load_images_of(model, labels=str(tmp_path / "new.csv"))
    assert again.edits.labels == {"train": {1: "dog"}}
    assert (again.edits.moved, again.membership) == (images.edits.moved, images.membership)
    assert find_changes(Passport.of(model), again, split="test") == ""
    plain = trained(find(images.arguments.dataset))
    corrected = load_images_of(plain, labels=str(tmp_path / "new.csv"))
    assert corrected.edits.labels == {"train": {1: "dog"}}
    assert find_changes(Passport.of(plain), corrected, split="test") == ""


def test_images_that_have_changed_since_are_named_and_refused_as_those_of_any_model(made, caplog):
    images, model = made
    place = images.arguments.dataset
    write_images(Path(place), count=1, first=90)
    again = load_images_of(model)
    assert again.edits.moved == {}
    assert (
        f"The images of '{place}' have changed (train), so the duplicates and labels that the run of the model moved, "
        "left out or corrected there are not found again." in caplog.messages
    )
    with pytest.raises(InputError, match=re.escape(f"The images of '{place}' have changed since this model was train")):
        find_changes(Passport.of(model), again, split="test")


def test_another_dataset_is_not_divided_by_the_audit_of_the_run(made, tmp_path):
    _, model = made
    other = load_images_of(model, dataset=str(write_images(tmp_path / "other", first=50)))
    assert other.arguments.identity() == {}
    assert other.edits.moved == {}
