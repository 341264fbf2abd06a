"""An audit as a setting of the images: what it keeps together, what it leaves out, and audits that cannot be used."""

import re
import shutil

import pytest

from helpers.audited import save_audit
from helpers.image_folders import draw, find, write_images
from helpers.images import make_dataset
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.audited import read_groups
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError


def rows_of(images):
    return {name: {*rows["index"][:]} for name, rows in images.parts.items()}


@pytest.fixture
def drawn(tmp_path):
    return write_images(tmp_path / "photos", count=20)


def test_splits_that_are_drawn_keep_the_duplicates_of_the_audit_together(drawn, tmp_path):
    before = find(drawn)
    test, train = min(rows_of(before)["test"]), min(rows_of(before)["train"])
    audit = save_audit(tmp_path / "audit", before, [("train", test), ("train", train)])
    for given in (audit, f"{audit}/audit.json"):
        after = find(drawn, audit=given)
        assert rows_of(after)["train"] == rows_of(before)["train"] | {test}
        assert after.division.endswith(
            f" 1 image was moved (1 to train) to keep 1 group of duplicates ({given}) together."
        )
    assert after.arguments.identity() == {"audit": f"{audit}/audit.json"}
    assert find(drawn, audit=save_audit(tmp_path / "none", before)).division == (
        f"{before.division} No group of duplicates ({tmp_path / 'none'}) was divided between parts that were drawn."
    )


def test_leaks_are_dropped_on_request_only(tmp_path):
    write_images(tmp_path / "photos" / "train")
    photos = write_images(tmp_path / "photos" / "test", first=40).parent
    before = find(photos)
    audit = save_audit(tmp_path / "audit", before, [("train", 3), ("test", 0)])
    assert rows_of(find(photos, audit=audit)) == rows_of(before)
    part = next(name for name, rows in rows_of(before).items() if name != "test" and 3 in rows)
    after = find(photos, audit=audit, drop_leaks=True)
    assert rows_of(after)[part] == rows_of(before)[part] - {3}
    assert after.left_out == {f"{part} image with a duplicate in test": ["train/cat/003.png"]}


def test_dropping_leaks_needs_an_audit():
    expected = "--drop_leaks needs --audit, which names the duplicates. Pass the folder that hfprobe audit wrote."
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        DataArguments(dataset="photos", drop_leaks=True)


def test_an_audit_holds_wherever_the_dataset_lies_and_whatever_classes_are_kept(tmp_path):
    photos = write_images(tmp_path / "photos", count=12, names=["cat", "dog", "owl"])
    images = find(photos)
    audit = save_audit(tmp_path / "audit", images, [("train", 0), ("train", 1)])
    assert read_groups(audit, images) == [[("train", 0), ("train", 1)]]
    moved = shutil.copytree(photos, tmp_path / "elsewhere" / "renamed")
    assert read_groups(audit, find(moved, classes=["owl", "cat"]))


REMEDY = "Pass the audit of these images. Make it: hfprobe audit {place} --report_dir <folder>"
OTHER = {
    "rows": (
        lambda place: draw(99, 0).save(place / "cat" / "new.png"),
        "its split 'train' has 40 images, and theirs 41",
    ),
    "names": (
        lambda place: (place / "cat" / "003.png").rename(place / "cat" / "003b.png"),
        "the files of its split 'train' have other names or sizes",
    ),
    "splits": (
        lambda place: write_images(place / "test", first=50) and _into_train(place),
        "it has the splits train, and they have test, train",
    ),
}


def _into_train(place):
    (place / "train").mkdir()
    for name in ("cat", "dog"):
        (place / name).rename(place / "train" / name)


@pytest.mark.parametrize("kind", OTHER)
def test_an_audit_of_other_images_is_refused(drawn, tmp_path, kind, monkeypatch):
    audit = save_audit(tmp_path / "audit", find(drawn))
    change, difference = OTHER[kind]
    change(drawn)
    expected = f"The audit '{audit}/audit.json' is not of the images of '{drawn}': {difference}. {REMEDY}"
    with pytest.raises(InputError) as raised:
        find(drawn, audit=audit)
    assert str(raised.value).replace("train, test", "test, train") == expected.format(place=drawn)


def test_images_without_names_are_told_by_their_content(tmp_path):
    for seed, name in enumerate(("one", "two")):
        dataset = make_dataset(train=50, test=10)
        dataset["train"] = dataset["train"].shuffle(seed=seed)
        dataset.save_to_disk(tmp_path / name)
    one, two = (load_images(DataArguments(dataset=str(tmp_path / name)), seed=0) for name in ("one", "two"))
    audit = save_audit(tmp_path / "audit", one, [("train", 0), ("test", 1)])
    assert read_groups(audit, one) == [[("train", 0), ("test", 1)]]
    with pytest.raises(InputError, match="the files of its split 'train' have other names or sizes"):
        read_groups(audit, two)


DAMAGED = {
    "no JSON": ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "a list": ("[]", "list indices must be integers or slices, not str"),
    "no duplicates": ("{}", "'duplicates' is missing"),
    "another kind": (
        '{"duplicates": [{"kind": "same"}], "provenance": {"splits": {}}}',
        "'0.images' is missing",
    ),
    "no splits": ('{"duplicates": [], "provenance": {}}', "'splits' is missing"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_audit_is_named(drawn, tmp_path, kind):
    content, reason = DAMAGED[kind]
    (tmp_path / "audit.json").write_text(content)
    expected = f"The audit '{tmp_path}/audit.json' is damaged: {reason}. Make it: hfprobe audit {drawn} --report_dir"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}"):
        find(drawn, audit=str(tmp_path))


def test_rows_that_do_not_exist_and_a_folder_without_an_audit_are_refused(drawn, tmp_path):
    audit = save_audit(tmp_path / "audit", find(drawn), [("train", 0), ("train", 40)])
    with pytest.raises(InputError, match="is damaged: there is no row 40 of 'train'"):
        find(drawn, audit=audit)
    expected = f"'{tmp_path}' holds no audit (audit.json: No such file or directory). Make it: hfprobe audit {drawn} "
    with pytest.raises(InputError, match=f"^{re.escape(expected)}"):
        find(drawn, audit=str(tmp_path))
