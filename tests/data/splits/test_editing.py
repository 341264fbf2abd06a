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


def test_a_divided_group_is_moved_to_the_part_that_has_most_of_it(drawn):
    rows = rows_of(drawn)
    groups = [
        [("train", rows["test"][0]), ("train", rows["test"][1]), ("train", rows["train"][0])],
        [("train", rows["train"][1]), ("train", rows["validation"][0])],  # equal: to train
        [("train", rows["train"][2]), ("train", rows["train"][3])],
        [("train", rows["validation"][1]), ("train", rows["test"][2])],  # equal: to validation
    ]
    moved = keep_together(drawn, groups)
    before, after = part_of(drawn), part_of(moved)
    assert {key: part for key, part in after.items() if part != before[key]} == {
        groups[0][2]: "test", groups[1][1]: "train", groups[3][1]: "validation",
    }  # fmt: skip
    assert after.keys() == before.keys()
    for group in groups:
        assert len({after[key] for key in group}) == 1
    for numbers in rows_of(moved).values():
        assert numbers == sorted(numbers)
    assert moved.division == (
        f"{drawn.division} 3 images were moved (1 to test, 1 to train, 1 to validation) to "
        "keep 3 groups of duplicates together."
    )
    assert moved.edits.moved == {
        "train": {rows["train"][0]: "test", rows["validation"][0]: "train", rows["test"][2]: "validation"}
    }
    assert {name: part.images for name, part in moved.membership.items()} == {
        name: len(numbers) for name, numbers in rows_of(moved).items()
    }
    for name, part in moved.membership.items():
        assert part.digest != drawn.membership[name].digest


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
