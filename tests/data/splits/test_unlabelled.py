import re
import shutil
from dataclasses import replace

import PIL.Image
import pytest

from helpers.images import CLASSES, draw_images, make_dataset
from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels import decoded_rows
from hfprobe.data.splits.images import load_images
from hfprobe.data.splits.unlabelled import decode_unlabelled, find_unlabelled
from hfprobe.models.simple_cnn.modeling import build_processor
from hfprobe.system.errors import InputError

PROCESSOR = build_processor(32)


def write_noise(folder, *, names, count, seed=0):
    """`count` distinct images in a folder of each class."""
    images, labels = draw_images(count * len(names), classes=len(names), seed=seed)
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(folder / names[label] / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("data") / "photos", names=CLASSES, count=20)


def load(photos, **settings):
    return load_images(DataArguments(dataset=str(photos), **settings), seed=42)


def test_training_images_beyond_the_subset_are_used_without_their_labels(photos):
    images = load(photos, max_train_samples=10)
    (beyond,) = find_unlabelled(images, None)
    whole = load(photos).parts["train"]["index"]
    assert sorted([*images.parts["train"]["index"], *beyond.rows["index"]]) == sorted(whole)
    ((split,),), left_out = decode_unlabelled(images, [beyond], processors=[PROCESSOR])
    assert (split.labels == -1).all()
    assert left_out == {}


def test_with_all_training_images_labelled_there_are_none(photos):
    assert find_unlabelled(load(photos), None) == []


def test_images_that_are_trained_validated_or_tested_with_are_kept_out_and_others_count_once(photos, tmp_path):
    images = load(photos, max_train_samples=40)
    files = {name: part["image"] for name, part in images.parts.items()}
    more = tmp_path / "more"
    more.mkdir()
    for name, count in {"train": 3, "validation": 2, "test": 1}.items():
        for number in range(count):
            shutil.copy(files[name][number]["path"], more / f"{name}{number}.png")
    new = write_noise(tmp_path / "new", names=["x"], count=4, seed=1)
    for number, path in enumerate(sorted(new.rglob("*.png"))):
        shutil.copy(path, more / f"new{number}.png")
        shutil.copy(path, more / f"again{number}.png")
    (beyond, place) = find_unlabelled(images, str(more))
    (splits,), left_out = decode_unlabelled(images, [beyond, place], processors=[PROCESSOR])
    assert [len(split) for split in splits] == [len(beyond.rows), 4]
    assert left_out == {
        "also a train image": 3,
        "also a validation image": 2,
        "also a test image": 1,
        "duplicate of another unlabelled image": 4,
    }


def test_test_images_that_a_run_does_not_evaluate_are_kept_out_too(photos, tmp_path):
    whole = load(photos)
    more = tmp_path / "more"
    more.mkdir()
    for name in ("validation", "test"):
        for item in whole.parts[name]["image"]:
            shutil.copy(item["path"], more / f"{name}{item['path'].replace('/', '_')}")
    images = load(photos, max_eval_samples=5)
    assert len(images.parts["test"]) == 5
    ((split,),), left_out = decode_unlabelled(images, find_unlabelled(images, str(more)), processors=[PROCESSOR])
    assert len(split) == 0
    counts = {name: len(whole.parts[name]) for name in ("validation", "test")}
    assert left_out == {f"also a {name} image": count for name, count in counts.items()}


def test_each_file_is_decoded_once_for_both_models(photos, tmp_path, monkeypatch):
    more = write_noise(tmp_path / "more", names=["x"], count=5, seed=3)
    images = load(photos)
    images.decode("train", "validation", "test", processor=PROCESSOR)
    read = []
    read_image = decoded_rows.read_image
    monkeypatch.setattr(decoded_rows, "read_image", lambda *a, **k: read.append(a) or read_image(*a, **k))
    processors = [PROCESSOR, build_processor(48)]
    splits, _ = decode_unlabelled(images, find_unlabelled(images, str(more)), processors=processors)
    assert [len(split) for (split,) in splits] == [5, 5]
    assert len(read) == 5


def test_a_split_without_labels_is_used_by_its_name(tmp_path):
    found = make_dataset()
    found["unlabelled"] = found["test"].select(range(7)).remove_columns("label")
    found.save_to_disk(tmp_path / "saved")
    images = load(tmp_path / "saved")
    (place,) = find_unlabelled(images, "unlabelled")
    assert len(place.rows) == 7
    with pytest.raises(InputError, match=re.escape("'train' is a split that this run trains, validates or tests with")):
        find_unlabelled(images, "train")


def test_training_images_without_a_label_are_used(tmp_path):
    photos = write_noise(tmp_path / "photos", names=CLASSES, count=12)
    paths = sorted(photos.rglob("*.png"))
    rows = [f"{path.relative_to(photos)},{path.parent.name if number % 6 else ''}" for number, path in enumerate(paths)]
    (photos / "labels.csv").write_text("\n".join(["file,label", *rows]))
    images = load(photos / "labels.csv")
    (place,) = find_unlabelled(images, None)
    assert len(place.rows) == 10
    assert {row["path"] for row in place.rows["image"]} == {str(path) for path in paths[::6]}


def test_unreadable_images_are_refused_or_left_out(photos, tmp_path):
    more = write_noise(tmp_path / "more", names=["x"], count=3, seed=2)
    next(more.rglob("*.png")).write_bytes(b"no image")
    images = load(photos)
    places = find_unlabelled(images, str(more))
    with pytest.raises(InputError, match=r"1 unlabelled images cannot be read: .*--skip_unreadable"):
        decode_unlabelled(images, places, processors=[PROCESSOR])
    skipping = replace(images, arguments=replace(images.arguments, skip_unreadable=True))
    ((split,),), left_out = decode_unlabelled(skipping, places, processors=[PROCESSOR])
    assert (len(split), left_out) == (2, {"cannot be read": 1})
