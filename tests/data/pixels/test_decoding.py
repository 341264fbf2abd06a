"""Images decoded from every layout: read once, evaluated, published and piped as the same images, or named if "
"unreadable."""

import errno
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from transformers import pipeline

from helpers.image_folders import load, numbers, write_images, write_noise
from helpers.image_kinds import (
    CLASSES,
    KINDS,
    NOT_IN_PIPELINES,
    SIZES,
    WAYS_IN,
    decode_test,
    encode,
    grey,
    write_folder,
    write_parquet,
)
from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels import decoded_rows
from hfprobe.data.pixels.image_files import read_image
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.modeling import LinearProbeImageProcessor
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate.measure import evaluate_model

pytestmark = pytest.mark.hostile


MODELS = ["cnn", "cnn of 64 x 64", "vit"]


@pytest.fixture(scope="module")
def published(request, tmp_path_factory):
    """A model folder as it is pushed, with a head that tells images apart."""
    name = request.param.split()[0]
    options = {"backbone": "test_byobnet", "backbone_weights": "random"} if name == "vit" else {}
    options |= {"image_size": 64} if "64" in request.param else {}
    torch.manual_seed(0)
    model, processor = build_model(name, labels=CLASSES, options=find_family(name).recipe_options(**options))
    last = model.head if name == "vit" else model.classifier[-1]
    pixels = processor(grey(96, 96).convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        torch.nn.init.normal_(last.weight, std=1)
        last.bias.sub_(model.eval()(pixel_values=pixels).logits[0])  # undecided, so that small differences show
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
# Each model, and each layout of a dataset: no layout knows the model.
@pytest.mark.parametrize(
    ("published", "way"),
    [*((model, "folder") for model in MODELS), ("cnn", "parquet"), ("cnn", "save_to_disk")],
    indirect=["published"],
)
def test_eval_and_pipeline_give_the_same_probabilities(way, published, tmp_path):
    contents = {f"{kind} {size}": KINDS[kind](*SIZES[size])[0] for kind in KINDS for size in SIZES}
    folder = WAYS_IN[way](tmp_path / "photos", contents)
    model, processor = load_model(folder=published)
    splits = decode_test(folder, processor=processor)
    result = evaluate_model(
        model=model, processor=processor, splits=splits, split="test", name="m", revision="r", dataset=""
    )
    classify = pipeline("image-classification", model=str(published), trust_remote_code=True, device="cpu")
    assert np.ptp(result.probabilities[:, 0]) > 0.05
    for number, (kind, content) in enumerate(contents.items()):
        if kind.rpartition(" ")[0] in NOT_IN_PIPELINES:
            image = read_image(content).image  # the same pixels, given to the pipeline as they are
        else:
            (tmp_path / "one").write_bytes(content)
            image = str(tmp_path / "one")
        answers = {answer["label"]: answer["score"] for answer in classify(image)}
        np.testing.assert_allclose(
            [answers[name] for name in CLASSES], result.probabilities[number], atol=1e-4, err_msg=kind
        )


@pytest.mark.parametrize("published", MODELS, indirect=True)
def test_unusual_image_does_not_change_the_others(published, tmp_path):
    processor = load_model(published)[1]
    contents = {"a": encode(grey(30, 24), "PNG")}
    alone = decode_test(write_folder(tmp_path / "alone", contents), processor=processor).test
    odd = contents | {"zz": encode(grey(90, 40), "PNG")}
    mixed = decode_test(write_folder(tmp_path / "mixed", odd), processor=processor).test
    assert not alone.fitted
    assert mixed.fitted
    assert mixed.images.shape[1] == mixed.images.shape[2]
    expected = ImageBatches(alone, processor=processor)[0]["pixel_values"]
    same = np.flatnonzero((mixed.digests == alone.digests[0]).all(axis=1))
    assert len(same) == len(alone)
    for position in same:
        assert torch.equal(ImageBatches(mixed, processor=processor)[position]["pixel_values"], expected)


@pytest.mark.parametrize("published", MODELS, indirect=True)
def test_each_file_is_read_once_and_not_again_by_the_next_call(published, tmp_path, monkeypatch):
    processor = load_model(published)[1]
    folder = write_folder(tmp_path / "photos", {str(n): encode(grey(40 + n, 50), "PNG") for n in range(4)})
    read = []
    monkeypatch.setattr(
        "hfprobe.data.pixels.decoded_rows.read_image",
        lambda content, **limit: read.append(1) or read_image(content, **limit),
    )
    for _ in range(2):
        decode_test(folder, processor=processor)
        assert len(read) == 2 * 4


def test_two_processes_may_decode_the_same_images_at_once(tmp_path, monkeypatch):
    processor = build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())[1]
    folder = write_folder(tmp_path / "photos", {"a": encode(grey(40, 50), "PNG")})
    found = []

    def read(content, **limit):
        monkeypatch.undo()
        monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: tmp_path / "cache")
        found.append(decode_test(folder, processor=processor).test.images)  # the other one is done first
        return read_image(content, **limit)

    monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("hfprobe.data.pixels.decoded_rows.read_image", read)
    found.append(decode_test(folder, processor=processor).test.images)
    np.testing.assert_array_equal(*found)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1


def test_identity_is_the_same_at_every_resolution_and_in_every_lossless_file(tmp_path):
    images = {str(number): grey(64 + number % 2, 64) for number in range(4)}
    png = write_folder(tmp_path / "png", {name: encode(image, "PNG") for name, image in images.items()})
    bmp = write_parquet(tmp_path / "bmp", {name: encode(image.convert("RGB"), "BMP") for name, image in images.items()})
    small = LinearProbeImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 40, "width": 40})
    processors = [build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())[1], small]
    found = {
        decode_test(folder, processor=processor).test.fingerprint for folder in (png, bmp) for processor in processors
    }
    assert len(found) == 1
    other = write_folder(tmp_path / "other", {name: encode(image.rotate(180), "PNG") for name, image in images.items()})
    assert decode_test(other, processor=processors[0]).test.fingerprint not in found


@pytest.mark.parametrize("way", WAYS_IN)
def test_replaced_files_are_detected_although_their_times_are_kept(way, tmp_path):
    processor = build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())[1]
    before, after = ({"a": encode(PIL.Image.new("RGB", (32, 32), colour), "PNG")} for colour in ("red", "lime"))
    folder = WAYS_IN[way](tmp_path / "photos", before)
    first = decode_test(folder, processor=processor).test
    other = WAYS_IN[way](tmp_path / "other", after)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            times = file.stat().st_atime_ns, file.stat().st_mtime_ns
            file.write_bytes((other / file.relative_to(folder)).read_bytes())
            os.utime(file, ns=times)
    second = decode_test(folder, processor=processor).test
    assert first.images[0, 0, 0].tolist() == [255, 0, 0]
    assert second.images[0, 0, 0].tolist() == [0, 255, 0]
    assert second.fingerprint != first.fingerprint


def test_all_unreadable_images_are_named_at_once_and_can_be_skipped(tmp_path, caplog):
    photos = write_images(tmp_path / "photos", count=25)
    for name in ("cat/003.png", "dog/007.png", "dog/011.png"):
        (photos / name).write_bytes(b"not an image")
    with pytest.raises(InputError) as error:
        load(photos)
    assert str(error.value).startswith("3 images: Image ")
    for name in ("cat/003.png", "dog/007.png", "dog/011.png"):
        assert f"({photos}/{name}) cannot be read: not an image" in str(error.value)
    assert str(error.value).endswith(". Replace or remove them, or pass --skip_unreadable.")
    splits = load(photos, skip_unreadable=True)
    parts = (splits.train, splits.validation, splits.test)
    assert sum(len(part) for part in parts) == 47
    assert {number for part in parts for number in numbers(part)} == set(range(25))
    assert len(splits.summary.left_out["cannot be read"]) == 3
    assert "Left out 3 images: image " in caplog.text


def test_headers_of_all_parts_are_checked_before_anything_is_decoded_and_once(tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", count=10)
    splits = load(photos)
    test = Path(splits.test.files[0])
    good = test.read_bytes()
    processor = build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options(image_size=64))[1]

    def decode(*names, **settings):
        images = load_images(DataArguments(dataset=str(photos), **settings), seed=0)
        return images.decode(*names, processor=processor)

    for content, reason in ((b"", "the file is empty"), (encode(grey(9000, 9), "PNG"), "it has 81,000 pixels")):
        with monkeypatch.context() as patch:
            patch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("an image was decoded"))
            test.write_bytes(content)
            with pytest.raises(InputError, match=f"^Image .* of split 'train' \\({test}\\) cannot be read: {reason}"):
                decode("train", "validation", max_pixels=80_000)
    assert len(decode("train", max_pixels=81_000).train) == len(splits.train)
    assert len(decode("train", "test", max_pixels=80_000, skip_unreadable=True).test) == len(splits.test) - 1
    test.write_bytes(good)
    decode("train", "validation")
    monkeypatch.setattr(
        "hfprobe.data.splits.divided.find_unreadable", lambda *_, **__: pytest.fail("headers were read again")
    )
    decode("train", "validation")


def test_many_small_images_are_decoded_without_a_look_at_their_headers(tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", count=10)
    monkeypatch.setattr("hfprobe.data.splits.divided.FEW", 10)
    with monkeypatch.context() as patch:
        patch.setattr("hfprobe.data.splits.divided.find_unreadable", lambda *_, **__: pytest.fail("headers were read"))
        load(photos)
    (photos / "cat" / "003.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"cannot be read: not an image\. Replace or remove it, or pass --skip_unread"):
        load(photos)


def test_an_image_above_a_lower_limit_is_not_taken_from_the_cache(tmp_path):
    photos = write_images(tmp_path / "photos", count=10)
    load(photos)
    with pytest.raises(InputError, match=r"^20 images: .* cannot be read: it has 1,024 pixels; allowed: at most 1,000"):
        load(photos, max_pixels=1000)


def test_a_class_whose_images_are_all_unreadable_is_named(tmp_path):
    photos = write_images(tmp_path / "photos", count=10)
    for file in (photos / "dog").iterdir():
        file.write_bytes(b"not an image")
    with pytest.raises(
        InputError, match=r"No train image of class dog can be read. Replace them, or leave the class out."
    ):
        load(photos, skip_unreadable=True)


def test_a_file_that_could_not_be_read_is_tried_again_by_the_next_call(tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", count=10)

    def refuse(content, **limit):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("hfprobe.data.pixels.decoded_rows.read_image", refuse)
        with pytest.raises(InputError, match="cannot be read: Too many open files"):
            load(photos)
    assert len(load(photos).train) == 13


def test_links_to_missing_files_are_skipped_too_and_named_pipes_never_read(tmp_path):
    photos = write_images(tmp_path / "photos", count=25)
    (photos / "cat" / "x.png").symlink_to("nowhere.png")
    os.mkfifo(photos / "dog" / "pipe.png")
    splits = load(photos, skip_unreadable=True)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 50
    assert sum(sum(counts) for counts in splits.summary.image_counts.values()) == 50


def test_eps_under_another_name_runs_no_other_program(tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", count=10)
    PIL.Image.new("RGB", (40, 40)).save(photos / "cat" / "003.png", format="EPS")
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was run"))
    with pytest.raises(InputError, match="it is EPS, which Pillow reads by running another program; export it as PNG"):
        load(photos)


def test_images_for_several_models_are_read_once_and_are_the_same_as_for_each_alone(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (50 + number, 90, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    processors = [
        LinearProbeImageProcessor(size={"height": side, "width": side}, crop_size={"height": side, "width": side})
        for side in (24, 32, 40)
    ]
    images = load_images(DataArguments(dataset=str(tmp_path / "photos")), seed=0)
    expected = [images.decode("train", "test", processor=processor) for processor in processors]
    other = load_images(DataArguments(dataset=str(shutil.copytree(tmp_path / "photos", tmp_path / "copy"))), seed=0)
    reads = []
    monkeypatch.setattr(decoded_rows, "read_image", lambda *args, **how: reads.append(1) or read_image(*args, **how))
    other.decode_for(processors)
    assert len(reads) == 12
    for processor, one in zip(processors, expected, strict=True):
        assert other.is_decoded("train", "validation", "test", processor=processor)
        found = other.decode("train", "test", processor=processor)
        for part in ("train", "test"):
            np.testing.assert_array_equal(found.part(part).images, one.part(part).images)
        assert found.fingerprint == one.fingerprint
    other.decode_for(processors)
    assert len(reads) == 12


@pytest.mark.parametrize("sides", [[(50 + n, 90) for n in range(20)], [(30, 30)] * 20], ids=["fitted", "unchanged"])
def test_an_image_that_another_part_of_the_cache_holds_is_not_decoded_again(tmp_path, monkeypatch, sides):
    photos = write_noise(tmp_path / "photos", sides=sides)
    large, small = (
        LinearProbeImageProcessor(size={"height": side, "width": side}, crop_size={"height": side, "width": side})
        for side in (40, 24)
    )

    def load():
        return load_images(DataArguments(dataset=str(photos)), seed=0)

    before = load()
    expected = {each: before.decode("train", processor=each).train for each in (large, small)}
    reads = []
    monkeypatch.setattr(decoded_rows, "read_image", lambda *args, **how: reads.append(1) or read_image(*args, **how))
    moved = before.parts["train"].select(range(9, 2, -1))
    after = replace(before, parts=before.parts | {"train": moved})
    for processor, one in expected.items():
        found = after.decode("train", processor=processor).train
        np.testing.assert_array_equal(found.images, one.images[9:2:-1])
        np.testing.assert_array_equal(found.digests, one.digests[9:2:-1])
    assert not reads
    for record in (cache.cache_folder() / "decoded").glob("*/record.json"):
        record.unlink()  # such a folder is incomplete
    after.decode("train", processor=large)
    assert len(reads) == 7
    load().decode("train", processor=large)
    reads.clear()

    PIL.Image.new("RGB", (30, 30)).save(photos / "b" / "new.png")
    load().decode("train", "validation", "test", processor=large)
    assert len(reads) <= 1 + 20 - len(before.parts["train"])  # the new one, and those that were not decoded before
    reads.clear()
    PIL.Image.new("RGB", (30, 30), "red").save(photos / "b" / "new.png")
    load().decode("train", "validation", "test", processor=large)
    assert len(reads) == 1
