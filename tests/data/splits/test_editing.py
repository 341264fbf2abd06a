"""Duplicates that are kept in one part, and images that are left out because another part has their duplicate."""

import re

import pytest

from helpers.image_folders import NAMES, draw, find, write_images
from hfprobe.data.sources.columns import paths_below
from hfprobe.data.splits.editing import drop_leaks, find_leaks, keep_together
from hfprobe.data.splits.parts import Edits
from hfprobe.system.errors import InputError


def rows_of(images):
    return {name: [*rows["index"][:]] for name, rows in images.parts.items()}


def part_of(images):
    return {(images.origins[name], row): name for name, rows in rows_of(images).items() for row in rows}


@pytest.fixture
def drawn(tmp_path):
    """26 train, 6 validation and 8 test images, drawn."""
    return find(write_images(tmp_path / "photos", count=20))


@pytest.fixture
def own(tmp_path):
    """A folder with the splits train, validation and test."""
    for first, (split, count) in zip((0, 20, 40), {"train": 6, "validation": 4, "test": 4}.items(), strict=True):
        write_images(tmp_path / "photos" / split, count=count, first=first)
    return find(tmp_path / "photos")


def counts_of(images):
    """(part, class) -> number of images."""
    return {(name, label): count for name, counts in images.counts().items() for label, count in enumerate(counts)}


def test_divided_groups_are_moved_as_a_whole_and_each_part_keeps_its_images_of_each_class(drawn):
    parts = part_of(drawn)
    labels = {
        ("train", row): label
        for rows in drawn.parts.values()
        for row, label in zip(rows["index"], rows["label"], strict=True)
    }
    # Of each class, pairs of train and test, and one group of train, validation and test.
    groups = []
    for label in sorted(set(labels.values())):
        mine = {
            name: [key for key in parts if parts[key] == name and labels[key] == label]
            for name in ("train", "validation", "test")
        }
        groups += [[mine["train"].pop(), mine["test"].pop()] for _ in range(2)]
        groups.append([mine["train"].pop(), mine["train"].pop(), mine["validation"].pop(), mine["validation"].pop()])
        groups.append([mine["train"].pop(), mine["train"].pop()])
    moved = keep_together(drawn, groups)
    after = part_of(moved)
    assert after.keys() == parts.keys()
    for group in groups:
        assert len({after[key] for key in group}) == 1
    together = {key for group in groups for key in group}
    assert all(after[key] == part for key, part in parts.items() if key not in together)
    assert all(after[key] == "train" for group in groups[3::4] for key in group)
    differences = [abs(count - counts_of(moved)[key]) for key, count in counts_of(drawn).items()]
    assert max(differences) <= 2
    assert {after[key] for group in groups[:2] for key in group} == {"train", "test"}
    for numbers in rows_of(moved).values():
        assert numbers == sorted(numbers)
    changed = {key[1]: part for key, part in after.items() if part != parts[key]}
    assert moved.edits.moved == {"train": changed}
    assert moved.division.startswith(f"{drawn.division} {len(changed)} images were moved (")
    assert moved.division.endswith(f") to keep {3 * len(set(labels.values()))} groups of duplicates together.")
    assert {name: part.images for name, part in moved.membership.items()} == {
        name: len(numbers) for name, numbers in rows_of(moved).items()
    }
    assert rows_of(keep_together(moved, groups)) == rows_of(moved)


def test_keeping_together_what_is_together_changes_nothing(drawn):
    rows = rows_of(drawn)
    again = keep_together(drawn, [[("train", row) for row in numbers] for numbers in rows.values()])
    assert rows_of(again) == rows
    assert again.membership == drawn.membership
    assert again.division == drawn.division
    assert again.edits == drawn.edits == Edits()


def test_splits_of_the_dataset_are_never_changed(own):
    groups = [[("train", 0), ("test", 0), ("validation", 0)], [("train", 1), ("train", 2), ("test", 3)]]
    assert rows_of(keep_together(own, groups)) == rows_of(own)


def test_only_the_drawn_parts_of_a_group_that_also_reaches_a_split_of_the_dataset_are_joined(tmp_path):
    write_images(tmp_path / "photos" / "train", count=10)
    write_images(tmp_path / "photos" / "test", count=3, first=50)
    images = find(tmp_path / "photos")
    rows = rows_of(images)
    group = [("train", rows["train"][0]), ("train", rows["validation"][0]), ("test", 0), ("test", 1), ("test", 2)]
    moved = part_of(keep_together(images, [group]))
    assert [moved[key] for key in group] == ["train", "train", "test", "test", "test"]


def test_groups_of_the_user_and_of_duplicates_are_joined(tmp_path):
    """Ten clips of four images per class; a duplicate joins two of them."""
    for label, name in enumerate(NAMES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            draw(number, label).save(tmp_path / "photos" / name / f"{name}clip{number // 4}_{number}.png")
    images = find(tmp_path / "photos", group_by="prefix")
    clip_of = {}
    for rows in images.parts.values():
        for row, path in zip(rows["index"][:], paths_below(rows, images.arguments), strict=True):
            clip_of["train", row] = path.split("_")[0]
    parts = part_of(images)
    one = next(key for key in parts if parts[key] == "train")
    other = next(key for key in parts if parts[key] == "test")
    moved = part_of(keep_together(images, [[one, other]]))
    clips = {}
    for key, part in moved.items():
        clips.setdefault(clip_of[key], set()).add(part)
    assert all(len(found) == 1 for found in clips.values())
    assert clips[clip_of[one]] == clips[clip_of[other]]
    assert sum(moved[key] != parts[key] for key in parts) == 4


def test_images_with_a_duplicate_in_a_later_part_are_left_out_and_named(own):
    groups = [
        [("train", 0), ("test", 0), ("validation", 0)],
        [("train", 1), ("validation", 2)],
        [("train", 2), ("train", 3)],
        [("test", 4), ("test", 5)],
    ]
    kept = drop_leaks(own, groups)
    before, after = rows_of(own), rows_of(kept)
    assert {name: {*before[name]} - {*after[name]} for name in before} == {
        "train": {0, 1}, "validation": {0}, "test": set(),
    }  # fmt: skip
    assert kept.left_out == {
        "train image with a duplicate in test": ["train/cat/000.png"],
        "train image with a duplicate in validation": ["train/cat/001.png"],
        "validation image with a duplicate in test": ["validation/cat/020.png"],
    }
    assert kept.membership == own.membership
    assert kept.edits.dropped == {"train": {0: "test", 1: "validation"}, "validation": {0: "test"}}
    assert find_leaks(own, groups) == {0}
    assert find_leaks(own, groups, into="validation") == {0, 2}
    assert find_leaks(kept, groups) == set()


def test_files_that_were_left_out_are_not_among_the_identical_ones(tmp_path):
    for split, first in (("train", 0), ("test", 40)):
        write_images(tmp_path / "photos" / split, first=first)
    draw(3, 0).save(tmp_path / "photos" / "test" / "cat" / "copy.png")
    images = find(tmp_path / "photos")
    assert len(images.identical) == 1
    assert drop_leaks(images, [[("train", 3), ("test", 10)]]).identical == []


def test_subsets_are_taken_of_what_is_left(tmp_path):
    for split, first in (("train", 0), ("test", 40)):
        write_images(tmp_path / "photos" / split, first=first)
    images = find(tmp_path / "photos", max_train_samples=12)
    groups = [[("train", row), ("test", row)] for row in (0, 1, 2, 10)]
    kept = drop_leaks(images, groups)
    assert len(kept.parts["train"]) == 12
    assert not {0, 1, 2, 10} & {*rows_of(kept)["train"]}


def test_a_class_that_would_disappear_from_train_is_refused_and_from_another_part_is_named(own, caplog):
    expected = (
        "No train image of class cat is left once duplicates are moved or left out and labels corrected. Leave out "
        "--audit, --drop_leaks or --labels, or leave it out of --classes."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        drop_leaks(own, [[("train", row) for row in range(6)] + [("test", 0)]])
    drop_leaks(own, [[("validation", row) for row in range(4)] + [("test", 0)]])
    assert "No validation image of class cat is left: its row in reports is empty." in caplog.messages


def test_rows_of_other_classes_are_no_images_of_a_group(tmp_path):
    images = find(write_images(tmp_path / "photos", names=["cat", "dog", "owl"]), classes=["cat", "dog"])
    rows = rows_of(images)
    assert rows_of(keep_together(images, [[("train", 25), ("train", rows["test"][0])]])) == rows
    assert find_leaks(images, [[("train", 25), ("train", rows["test"][0])]]) == set()
