import json
import re

import pytest

from helpers.audited import make_audit
from hfprobe.data.splits.audited import ImageKey
from hfprobe.system.errors import InputError
from hfprobe.tasks.audit.result import MOST_PER_GROUP, Audit, choose_shown, leaked_rows


def test_an_audit_is_read_back_as_it_was_written(tmp_path):
    audit = make_audit()
    audit.save(tmp_path)
    assert Audit.load(tmp_path) == audit


def test_audit_json_has_the_documented_entries(tmp_path):
    make_audit(file=None).save(tmp_path)
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content["duplicates"][1] == {
        "kind": "exact",
        "images": [{"split": "test", "row": 3, "file": None}, {"split": "test", "row": 4, "file": None}],
        "similarity": 1.0,
    }
    assert content["labels"][0] == {
        "split": "train", "row": 5, "file": None, "given": "cat", "suggested": "dog", "probability_given": 0.01,
        "probability_suggested": 0.98,
    }  # fmt: skip


def test_a_damaged_audit_is_refused(tmp_path):
    make_audit().save(tmp_path)
    path = tmp_path / "audit.json"
    path.write_text(path.read_text().replace('"near"', '"similar"'))
    message = f"The audit '{path}' is damaged: 'duplicates.0.kind' is 'similar'; allowed: exact, near. Make it: "
    with pytest.raises(InputError, match=re.escape(message)):
        Audit.load(tmp_path)
    with pytest.raises(
        InputError, match=re.escape("holds no audit (audit.json: No such file or directory). Make it: ")
    ):
        Audit.load(tmp_path / "other")


def test_leaked_rows_are_those_with_a_duplicate_in_another_part():
    audit = make_audit()
    assert leaked_rows(audit) == {0}
    assert leaked_rows(audit, of=("test",)) == {0, 3, 4}
    assert leaked_rows(audit, into="train", of=("test",)) == {1, 2}
    assert leaked_rows(audit, of=("validation",)) == set()


def test_the_sentences_state_the_effective_n():
    assert make_audit().sentences == [
        "40 images (24 train, 6 validation, 10 test) of 2 classes were looked at.",
        "1 image cannot be read.",
        "5 images are in 2 groups of duplicates, 1 of them exact. Look at the others: different objects that look "
        "alike can be among them.",
        "Of the 10 test images, 1 has a duplicate in train and 2 repeat each other, so the effective n of "
        "test may be as small as 9.",
        "The probe disagrees with the labels of 2 images (5.0 %). These are questions: many of the labels are correct.",
    ]


def test_of_a_large_group_images_of_every_part_are_shown():
    images = [ImageKey("train", row, None) for row in range(20)] + [ImageKey("test", row, None) for row in (3, 4)]
    shown = choose_shown(images, {("test", 3): "test", ("test", 4): "test"})
    assert len(shown) == MOST_PER_GROUP
    assert shown == [*images[:6], *images[-2:]]
