"""Which images are in train, validation and test where a dataset does not say it, and groups that stay together."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rows import make_rows
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.division import divide
from hfprobe.data.splits.drawing import draw_part
from hfprobe.system.errors import InputError


def column(rows, name):
    return np.asarray(rows[name][:])


def check_groups(parts, group_of):
    seen = {}
    for name, part in parts.items():
        for row in part.rows:
            assert seen.setdefault(group_of(row), name) == name


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(st.integers(0, 2), min_size=12, max_size=80), st.integers(0, 2**32 - 1))
def test_drawn_parts_are_disjoint_complete_seeded_and_hold_every_class(extra, seed):
    labels = [0, 1, 2] * 3 + extra
    parts, _ = divide({"train": make_rows(labels)}, DataArguments(dataset="d"), seed=seed)
    index = np.concatenate([column(part.rows, "index") for part in parts.values()])
    assert sorted(index) == list(range(len(labels)))
    for part in parts.values():
        assert set(column(part.rows, "label")) == {0, 1, 2}
    again, _ = divide({"train": make_rows(labels)}, DataArguments(dataset="d"), seed=seed)
    for name in parts:
        np.testing.assert_array_equal(column(parts[name].rows, "index"), column(again[name].rows, "index"))


@pytest.mark.parametrize("existing", [("test",), ("validation",), ("validation", "test")])
def test_existing_splits_are_used_as_they_are(existing):
    kept = {name: make_rows([0, 1] * 20) for name in ("train", *existing)}
    parts, _ = divide(kept, DataArguments(dataset="d"), seed=1)
    assert list(parts) == ["train", "validation", "test"]
    for name in existing:
        assert parts[name].origin == name
        assert len(parts[name].rows) == 40
    assert len(parts["train"].rows) == 40 - 8 * (2 - len(existing))


@pytest.mark.parametrize(
    ("setting", "path", "group"),
    [
        ({"group_by": "folder"}, "photos/class{label}/patient{group}/{number}.jpg", None),
        ({"group_by": "prefix"}, "photos/class{label}/burst{group}_{number}.jpg", None),
        ({"group_by": "prefix"}, "photos/class{label}/IMG-{group} {number}.jpg", None),
        ({"group_column": "patient"}, "photos/class{label}/{number}.jpg", "patient"),
    ],
)
def test_images_of_a_group_are_in_one_split(setting, path, group):
    generator = np.random.default_rng(0)
    labels, numbers = [0, 1] * 100, generator.integers(0, 25, 200).tolist()
    paths = [
        path.format(label=label, group=of, number=at)
        for at, (label, of) in enumerate(zip(labels, numbers, strict=True))
    ]
    rows = make_rows(labels, paths=paths, groups=[f"p{of}" for of in numbers] if group else None)
    parts, how = divide({"train": rows}, DataArguments(dataset="d", **setting), seed=3)
    check_groups(parts, lambda row: numbers[row["index"]])
    shares = [len(parts[name].rows) / 200 for name in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.64, 0.16, 0.2], atol=0.07)
    assert ", each group in one split. 200 images in " in how


def test_a_group_that_spans_classes_stays_together():
    labels = [0, 1] * 60
    groups = [f"visit{number // 6}" for number in range(120)]
    parts, _ = divide(
        {"train": make_rows(labels, groups=groups)}, DataArguments(dataset="d", group_column="visit"), seed=0
    )
    check_groups(parts, lambda row: row["group"])


def test_a_class_of_one_group_cannot_be_divided():
    rows = make_rows([0, 1] * 20, groups=["a" if number % 2 else f"b{number}" for number in range(40)])
    expected = "All images of class class1 are of one group, a, so they cannot be divided between two splits."
    with pytest.raises(InputError, match=re.escape(expected)):
        divide({"train": rows}, DataArguments(dataset="d", group_column="patient"), seed=0)


def test_groups_that_cannot_be_divided_are_refused():
    rows = make_rows([0, 1] * 20, groups=["a", "b", "b", "a"] * 10)
    with pytest.raises(InputError, match="Pass --group_column, --group_by or --group_regex with smaller groups"):
        divide({"train": rows}, DataArguments(dataset="d", group_column="patient"), seed=0)


def test_a_part_of_the_default_dataset_is_drawn_as_before():
    """The positions that `sklearn.model_selection.train_test_split` gives: those of all published figures."""
    from sklearn.model_selection import train_test_split

    labels = np.random.default_rng(0).permutation(np.arange(500) % 5)
    kept, drawn = draw_part(make_rows(labels.tolist()), seed=42)
    train, validation = train_test_split(np.arange(500), test_size=100, stratify=labels, random_state=42)
    np.testing.assert_array_equal(kept, np.sort(train))
    np.testing.assert_array_equal(drawn, np.sort(validation))
