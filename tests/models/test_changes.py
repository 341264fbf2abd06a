import re
import shutil
from dataclasses import replace

import PIL.Image
import pytest

from helpers.image_folders import NAMES, draw, write_images
from helpers.models import cat_model, stamp
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.data.splits.membership import describe_part
from hfprobe.models.changes import check_not_solved_on, find_changes
from hfprobe.models.own_images import load_images_of
from hfprobe.models.passport import Passport
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate.measure import evaluate_images

SPLITS = ("train", "validation", "test")
REMEDY = "pass a folder of images that it has not seen: --dataset <folder> --split all."


def trained(dataset, *, seed=3, **settings):
    """A model with the record of a run on a dataset."""
    images = load_images(DataArguments(dataset=str(dataset), **settings), seed=seed)
    model, processor = cat_model(labels=NAMES)
    values = {"images": images.arguments.identity(), "membership": images.membership}
    stamp(model, dataset=str(dataset), seed=seed, split_seed=seed, **values)
    return model, processor


def changes(model, *, split="test", **settings):
    images = load_images_of(model, whole=split == "all", **settings)
    return find_changes(Passport.of(model), images, split=split)


def refused(model, text, **settings):
    with pytest.raises(InputError) as raised:
        changes(model, **settings)
    assert str(raised.value).startswith(text), str(raised.value)
    assert str(raised.value).endswith(REMEDY)


@pytest.fixture
def own(tmp_path):
    """A folder whose train/, validation/ and test/ have 10, 4 and 5 images per class; no two have one name."""
    for first, (split, count) in zip((0, 20, 40), {"train": 10, "validation": 4, "test": 5}.items(), strict=True):
        write_images(tmp_path / "photos" / split, count=count, first=first)
    return tmp_path / "photos"


@pytest.fixture
def drawn(tmp_path):
    return write_images(tmp_path / "photos", count=20)


@pytest.mark.parametrize("kind", ["own", "drawn"])
def test_nothing_has_changed_where_the_images_are_the_same(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    model, _ = trained(folder)
    for split in ("validation", "test"):
        assert changes(model, split=split, max_eval_samples=4) == ""
    place = shutil.copytree(folder, tmp_path / "renamed")
    assert changes(model, dataset=str(place)) == ""


def test_a_test_split_that_is_gone_is_not_replaced_by_training_images(own, tmp_path):
    model, _ = trained(own)
    (own / "test").rename(tmp_path / "moved")
    refused(
        model,
        f"The test images of '{own}' were a split of the dataset (10 images) when this model was trained, and today "
        "they are drawn from its training images (4 images), so some of them may have been training images. Restore",
    )
    assert changes(model, split="validation") == ""  # as they were
    assert changes(model, split="all", dataset=str(tmp_path / "moved")) == ""
    (own / "validation").rename(tmp_path / "moved validation")
    refused(model, f"The validation images of '{own}' were a split of the dataset (8 images)", split="validation")


@pytest.mark.parametrize("new", [True, False])
def test_a_test_split_that_was_added_is_refused(drawn, tmp_path, new):
    model, _ = trained(drawn)
    (drawn / "train").mkdir()
    for name in NAMES:
        (drawn / name).rename(drawn / "train" / name)
    assert changes(model) == ""  # the same images, drawn in the same way
    if new:
        write_images(drawn / "test", first=100)
    else:
        for name in NAMES:
            (drawn / "test" / name).mkdir(parents=True)
            for number in range(8):
                (drawn / "train" / name / f"00{number}.png").rename(drawn / "test" / name / f"00{number}.png")
    refused(model, f"The test images of '{drawn}' were drawn from its training images (8 images) when this model")


def swap_label(folder):
    (folder / "test/cat/041.png").rename(folder / "test/dog/cat041.png")


EDITS = {
    "8 now": lambda folder: [(folder / "test" / name / "041.png").unlink() for name in NAMES],
    "12 now": lambda folder: [draw(99, 0).save(folder / "test" / name / "new.png") for name in NAMES],
    "10 now, with other files or labels": swap_label,
}


@pytest.mark.parametrize("now", EDITS)
def test_a_test_split_of_its_own_that_was_edited_is_evaluated_and_named(own, now, caplog):
    model, processor = trained(own)
    EDITS[now](own)
    said = f"The test split has changed since training: 10 images then, {now}."
    assert changes(model) == said
    result = evaluate_images(
        model=model, processor=processor, images=load_images_of(model), split="test", name="m", revision="r"
    )
    assert result.provenance.split_changes == said
    assert said in caplog.messages
    assert "membership" not in result.provenance.run
    write_images(own / "train", count=1, first=70)
    refused(
        model,
        f"The training images of '{own}' have changed since this model was trained, and so has its test split (10 "
        f"images then, {now}): training images may have been moved into it.",
    )


def test_images_of_another_content_are_a_change(own):
    model, _ = trained(own)
    PIL.Image.effect_noise((32, 32), 90).save(own / "test" / "cat" / "041.png")
    assert changes(model).endswith("with other files or labels.")


def test_a_change_of_the_training_images_alone_leaves_a_test_split_of_its_own_as_it_is(own):
    model, _ = trained(own)
    write_images(own / "train", count=3, first=80)
    assert changes(model) == ""


@pytest.mark.parametrize("edit", ["add", "remove", "rename"])
def test_drawn_test_images_of_a_dataset_that_changed_are_refused(drawn, tmp_path, edit):
    model, _ = trained(drawn)
    draw(99, 0).save(drawn / "cat" / "new.png") if edit == "add" else None
    (drawn / "cat" / "003.png").unlink() if edit == "remove" else None
    (drawn / "cat" / "000.png").rename(drawn / "cat" / "999.png") if edit == "rename" else None
    expected = (
        f"The images of '{drawn}' have changed since this model was trained. Its test images were drawn from them"
    )
    refused(model, expected)
    place = drawn.rename(tmp_path / "elsewhere").rename(tmp_path / "a")
    (tmp_path / "b").mkdir()
    moved = place.rename(tmp_path / "b" / "photos")
    refused(model, expected.replace(str(drawn), str(moved)), dataset=str(moved))
    assert changes(model, dataset=str(write_images(tmp_path / "new", first=50)), split="all") == ""


@pytest.mark.parametrize("split", ["validation", "test"])
def test_images_that_are_divided_in_another_way_are_refused(drawn, split):
    model, _ = trained(drawn, group_regex="[0-9][.]png")
    images = load_images(DataArguments(dataset=str(drawn)), seed=4)
    expected = (
        f"The images of '{drawn}' are divided in another way than when this model was trained, so some of the {split} "
        f"images may have been training images. Divide them as then, with seed 3 --group_regex [0-9][.]png, or {REMEDY}"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        find_changes(Passport.of(model), images, split=split)


def test_the_training_images_are_recognised_as_a_dataset_of_their_own(own, tmp_path):
    model, _ = trained(own)
    copy = shutil.copytree(own / "train", tmp_path / "copy")
    for place in (own / "train", copy):
        for split in ("all", "test"):
            refused(
                model,
                f"The images of '{place}' are those of this model's training (train). To evaluate it, pass",
                dataset=str(place),
                split=split,
            )
    refused(model, f"The images of '{own}/validation' are", dataset=str(own / "validation"), split="all")
    assert changes(model, dataset=str(own / "test"), split="all") == ""
    copy = shutil.copytree(own, tmp_path / "whole")
    refused(model, f"The images of '{copy}' are those of this", dataset=str(copy), split="all")
    shutil.rmtree(own / "test")
    shutil.copytree(own / "validation", own / "test")
    refused(model, f"The images of '{own}' are those of this model's training (validation). To")


def test_a_dataset_that_is_gone_is_named(drawn, tmp_path):
    model, _ = trained(drawn)
    drawn.rename(tmp_path / "elsewhere")
    expected = f"The dataset of this model, '{drawn}', does not exist any more. If it was moved, pass its new place: "
    with pytest.raises(InputError, match=re.escape(expected)):
        load_images_of(model)


def test_rows_of_tables_and_of_datasets_without_files_are_compared_too(tmp_path, dataset_folder):
    folder = write_images(tmp_path / "photos", count=20)
    rows = [f"{name}/{number:03}.png,{name}" for name in NAMES for number in range(20)]
    table = folder / "labels.csv"
    table.write_text(
        "\n".join(["file,label,split", *(f"{row},{'test' if n % 4 else 'train'}" for n, row in enumerate(rows))])
    )
    model, _ = trained(table)
    assert changes(model) == ""
    table.write_text(table.read_text().replace("cat/005.png,cat", "cat/005.png,dog"))
    assert (
        changes(model)
        == "The test split has changed since training: 30 images then, 30 now, with other files or labels."
    )
    images = load_images(DataArguments(dataset=str(dataset_folder)), seed=1)
    again = load_images(DataArguments(dataset=str(dataset_folder)), seed=2)
    assert images.membership["test"] == again.membership["test"]
    assert images.membership["validation"] != again.membership["validation"]


@pytest.mark.parametrize("split", ["test", "all"])
@pytest.mark.parametrize("change", ["one less", "one more", "other labels"])
def test_a_changed_copy_of_the_training_images_is_recognised(drawn, tmp_path, split, change):
    model, _ = trained(drawn)
    copy = shutil.copytree(drawn, tmp_path / "copy")
    if change == "one less":
        (copy / "cat" / "003.png").unlink()
    elif change == "one more":
        shutil.copy(copy / "cat" / "003.png", copy / "cat" / "new.png")
    else:
        for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
            (copy / old).rename(copy / new)
    with pytest.raises(InputError, match=rf"At least \d+ of the \d+ (test )?images of '{copy}' are those of this"):
        changes(model, dataset=str(copy), split=split)


@pytest.mark.parametrize("split", ["test", "all"])
def test_other_images_with_the_same_names_and_sizes_are_evaluated(tmp_path, split):
    for first, name in ((0, "one"), (100, "two")):
        for label, folder in enumerate(NAMES):
            (tmp_path / name / folder).mkdir(parents=True)
            for number in range(10):
                draw(first + number, label).save(tmp_path / name / folder / f"{label}{number}.bmp")
    model, _ = trained(tmp_path / "one")
    assert changes(model, dataset=str(tmp_path / "two"), split=split) == ""
    copy = shutil.copytree(tmp_path / "one", tmp_path / "copy")
    refused(model, f"The images of '{copy}'", dataset=str(copy), split="all")


def test_the_sample_of_a_part_is_bounded_and_the_same_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr("hfprobe.data.splits.membership.SAMPLED", 5)
    images = load_images(DataArguments(dataset=str(write_images(tmp_path / "photos", count=10))), seed=0)
    rows = images.parts["train"]
    how = {"own": False, "by_number": False}
    assert len(describe_part(rows, **how).sample) == 5
    assert describe_part(rows, **how) == describe_part(rows.select(range(len(rows))[::-1]), **how)
    assert describe_part(rows, own=False, by_number=True).sample == []


@pytest.mark.parametrize("layout", ["drawn", "own"])
def test_files_that_were_replaced_by_others_of_the_same_name_and_size_are_a_change(tmp_path, layout):
    for split in ("train", "test") if layout == "own" else ("",):
        for label, name in enumerate(NAMES):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(10):
                draw(number, label).save(tmp_path / "photos" / split / name / f"{split}{number}.bmp")
    model, _ = trained(tmp_path / "photos")
    assert changes(model) == ""
    for file in (tmp_path / "photos").rglob("*/test*.bmp" if layout == "own" else "*.bmp"):
        draw(200, 0).save(file)
    if layout == "own":
        assert changes(model) == (
            "The test split has changed since training: 20 images then, 20 now, with other files or labels."
        )
    else:
        refused(model, f"The images of '{tmp_path}/photos' have changed since this model was trained.")


@pytest.mark.parametrize("place", ["same", "copied", "some of them"])
def test_validation_images_that_a_model_was_solved_on_are_refused(own, tmp_path, place):
    model, processor = trained(own)
    replace(Passport.of(model), refit=True).stamp(model)
    folder = own if place == "same" else tmp_path / "other"
    if place != "same":
        shutil.copytree(own, folder)
    if place == "some of them":
        write_images(folder / "validation", count=2, first=90)
    images = load_images_of(model, dataset=str(folder), split="validation")
    how = {"model": model, "processor": processor, "name": "m", "revision": "1", "images": images}
    message = "At least" if place == "some of them" else "The validation images are among those that this model was"
    with pytest.raises(InputError, match=f"^{message}"):
        evaluate_images(split="validation", **how)
    if place == "some of them":
        replace(Passport.of(model), refit=False).stamp(model)
        assert find_changes(Passport.of(model), images, split="validation") == ""
    else:
        check_not_solved_on(Passport.of(model), images, split="test")
