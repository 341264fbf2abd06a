import numpy as np
import pytest

import hfprobe
from helpers.audited import as_dataset, textures
from hfprobe.data.splits.audited import read_groups
from hfprobe.system.errors import InputError
from hfprobe.tasks.audit.result import leaked_rows

BACKBONE = {"backbone": "test_byobnet", "backbone_weights": "random"}


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    """Planted: test 2 is train 3, test 5 is the mirror image of train 20, test 7 is test 8; test 11 is dark."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr("hfprobe.data.cache.cache_folder", lambda: cache)
        splits = textures()
        (train, _), (test, _) = splits["train"], splits["test"]
        test[2], test[5], test[8] = train[3], train[20][:, ::-1], test[7]
        test[11] = (np.asarray(test[11]) * 0.02).astype(np.uint8)
        return hfprobe.audit(hfprobe.load_images(as_dataset(splits)), **BACKBONE)


def test_planted_duplicates_are_found_with_the_rows_of_the_source(audit):
    found = {
        (group.kind, tuple(sorted((image.split, image.row) for image in group.images))) for group in audit.duplicates
    }
    assert found == {
        ("exact", (("test", 2), ("train", 3))),
        ("near", (("test", 5), ("train", 20))),
        ("exact", (("test", 7), ("test", 8))),
    }
    assert leaked_rows(audit) == {2, 5}
    # The leaks come first.
    assert {image.split for image in audit.duplicates[-1].images} == {"test"}


def test_the_effective_n_counts_duplicates_once(audit):
    parts = audit.summary.parts
    assert {name: (part.images, part.effective_n) for name, part in parts.items()} == {
        "train": (19, 19),
        "validation": (5, 5),
        "test": (12, 11),
    }
    assert parts["validation"].split == "train"
    assert parts["test"].duplicate_rows == [2, 5, 7, 8]


def test_an_audit_is_recognised_as_that_of_its_images(audit, tmp_path):
    assert {name: found.rows for name, found in audit.provenance.splits.items()} == {"train": 24, "test": 12}
    images = hfprobe.load_images(as_dataset(textures()))
    audit.save(tmp_path)
    with pytest.raises(InputError, match="the files of its split 'test' have other names or sizes"):
        read_groups(tmp_path, images)


def test_the_summary_counts_files_and_classes(audit):
    assert audit.summary.classes == {"cat": 18, "dog": 18}
    assert audit.summary.formats == {"PNG": 36}
    assert audit.summary.sizes.smallest == audit.summary.sizes.largest == (48, 48)


def test_training_the_probe_does_not_extract_the_features_again(tmp_path, monkeypatch, caplog):
    images = hfprobe.load_images(as_dataset(textures(train=30)))
    hfprobe.audit(images, **BACKBONE)
    monkeypatch.setattr("hfprobe.models.linear_probe.features._extract", lambda *_, **__: pytest.fail("extracted"))
    hfprobe.train("probe", images, output_dir=tmp_path / "run", hub_dir=tmp_path / "hub", use_cpu=True, **BACKBONE)


def test_an_image_that_cannot_be_read_is_named_and_left_out(tmp_path):
    import PIL.Image

    for split, (images, labels) in textures().items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "photos" / split / ("cat", "dog")[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image).save(path)
    damaged = tmp_path / "photos" / "test" / "cat" / "001.png"
    damaged.write_bytes(b"no image")
    audit = hfprobe.audit(hfprobe.load_images(tmp_path / "photos"), **BACKBONE)
    assert audit.summary.parts["test"].images == 11
    assert audit.summary.unreadable == [f"image 1 of split 'test' ({damaged}) cannot be read: not an image"]
    assert {item.file for item in audit.labels} <= {
        f"{split}/{name}/{number:03}.png"
        for split in ("train", "test")
        for name in ("cat", "dog")
        for number in range(24)
    }
