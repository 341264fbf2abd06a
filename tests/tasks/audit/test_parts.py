"""What duplicates mean for the parts of the images."""

from helpers.audited import make_audit
from hfprobe.tasks.audit.parts import PartSummary, summarize_duplicates


def rows_of(**changes):
    """Part -> split and rows, of the images of `make_audit`; `changes`: row of train -> part."""
    rows = {"train": set(range(24)), "validation": set(range(24, 30))}
    for row, part in changes.items():
        for name, found in rows.items():
            (found.add if name == part else found.discard)(int(row.removeprefix("row")))
    return {name: ("train", sorted(found)) for name, found in rows.items()} | {"test": ("test", range(10))}


def test_duplicates_are_counted_by_the_part_of_each_image():
    duplicates = make_audit().duplicates
    parts, found = summarize_duplicates(rows_of(), duplicates)
    assert found == duplicates
    assert parts == {
        "train": PartSummary("train", 24, 23, {"train": 2, "validation": 0, "test": 2}, [1, 2]),
        "validation": PartSummary("train", 6, 6, {"train": 0, "validation": 0, "test": 0}, []),
        "test": PartSummary("test", 10, 9, {"train": 1, "validation": 0, "test": 2}, [0, 3, 4]),
    }
    moved, _ = summarize_duplicates(rows_of(row2="validation"), duplicates)
    assert moved["train"] == PartSummary("train", 23, 23, {"train": 0, "validation": 1, "test": 1}, [1])
    assert moved["validation"].duplicated_in == {"train": 1, "validation": 0, "test": 1}


def test_images_of_no_part_are_no_duplicates_and_groups_that_reach_into_test_come_first():
    duplicates = make_audit().duplicates
    assert summarize_duplicates(rows_of(), duplicates[::-1])[1] == duplicates
    dropped = rows_of() | {"train": ("train", range(3, 24))}
    parts, found = summarize_duplicates(dropped, duplicates[::-1])
    assert parts["test"] == PartSummary("test", 10, 9, {"train": 0, "validation": 0, "test": 2}, [3, 4])
    assert parts["train"].images == 21
    assert [len(group.images) for group in found] == [3, 2]
