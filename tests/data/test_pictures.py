"""Whatever a picture's kind, size, shape, orientation and depth: evaluated, published and piped, it is one picture."""

import io
import os
import re

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from transformers import pipeline
from transformers.image_utils import load_image

from hfprobe.data.arguments import DataArguments
from hfprobe.data.pictures import read_picture
from hfprobe.data.splits import load_images
from hfprobe.data.store import ImageBatches
from hfprobe.evaluation.evaluate import evaluate_model
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.modeling import LinearProbeImageProcessor
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError

pytestmark = pytest.mark.hostile

CLASSES = ["cat", "dog"]
SIZES = {"smaller": (20, 20), "larger": (96, 96), "wide": (200, 60), "tall": (61, 150), "odd": (67, 90)}
TURNED = 6  # EXIF: the picture is to be rotated by 90 degrees clockwise


def ramp(width, height, *, top=255):
    """Grey values that rise from left to right and, more slowly, downwards: no two sides are alike."""
    across, down = np.meshgrid(np.linspace(0, 0.8, width), np.linspace(0, 0.2, height))
    return (across + down) * top


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def tiff(values, **tags):
    info = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info.tagtype[int(tag[1:])] = PIL.TiffTags.DOUBLE
        info[int(tag[1:])] = value
    return encode(PIL.Image.fromarray(values), "TIFF", tiffinfo=info)


def turned(image, kind):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = TURNED
    return encode(image.transpose(PIL.Image.Transpose.ROTATE_90), kind, exif=exif)


def grey(width, height):
    return PIL.Image.fromarray(ramp(width, height).round().astype(np.uint8))


def half_transparent(width, height):
    image = grey(width, height).convert("RGBA")
    alpha = np.full((height, width), 255, dtype=np.uint8)
    alpha[:, width // 2 :] = 0
    image.putalpha(PIL.Image.fromarray(alpha))
    return image


def on_white(width, height):
    expected = ramp(width, height)
    expected[:, width // 2 :] = 255
    return expected


# kind -> a file of `ramp`, and the grey values that it becomes (None: those of the ramp).
KINDS = {
    "RGB PNG": lambda *size: (encode(grey(*size).convert("RGB"), "PNG"), None),
    "RGB JPEG": lambda *size: (encode(grey(*size).convert("RGB"), "JPEG", quality=95), None),
    "L PNG": lambda *size: (encode(grey(*size), "PNG"), None),
    "P PNG": lambda *size: (encode(grey(*size).convert("P"), "PNG"), None),
    "CMYK TIFF": lambda *size: (encode(grey(*size).convert("CMYK"), "TIFF"), None),
    "turned JPEG": lambda *size: (turned(grey(*size).convert("RGB"), "JPEG"), None),
    "turned PNG": lambda *size: (turned(grey(*size), "PNG"), None),
    "turned 16-bit PNG": lambda *size: (turned(PIL.Image.fromarray(ramp(*size, top=65535).astype("u2")), "PNG"), None),
    "16-bit PNG": lambda *size: (encode(PIL.Image.fromarray(ramp(*size, top=65535).astype("u2")), "PNG"), None),
    "12 bits in a 16-bit PNG": lambda *size: (
        encode(PIL.Image.fromarray(ramp(*size, top=4095).astype("u2")), "PNG"),
        None,
    ),
    "12 bits in a 16-bit TIFF": lambda *size: (tiff(ramp(*size, top=4095).astype("u2")), None),
    "float TIFF with its range": lambda *size: (tiff(ramp(*size, top=1).astype("f4"), _340=0.0, _341=1.0), None),
    "32-bit TIFF with its range": lambda *size: (tiff(ramp(*size, top=9e6).astype("i4"), _340=0.0, _341=9e6), None),
    "RGBA PNG": lambda *size: (encode(half_transparent(*size), "PNG"), on_white(*size)),
    "LA PNG": lambda *size: (encode(half_transparent(*size).convert("LA"), "PNG"), on_white(*size)),
    "GIF of two frames": lambda *size: (
        encode(grey(*size), "GIF", save_all=True, append_images=[PIL.ImageOps.invert(grey(*size))]),
        None,
    ),
}
# What transformers.pipeline reads otherwise: it cuts depths off and drops transparency (docs/pictures.md).
NOT_IN_PIPELINES = {kind for kind in KINDS if "bit" in kind or "float" in kind or kind in ("RGBA PNG", "LA PNG")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_image_mode_is_read_as_upright_rgb(kind, size):
    content, expected = KINDS[kind](*SIZES[size])
    expected = ramp(*SIZES[size]) if expected is None else expected
    image = read_picture(content).image
    assert image.mode == "RGB"
    assert image.size == SIZES[size]
    for channel in range(3):
        difference = np.abs(np.asarray(image)[:, :, channel] - expected)
        assert np.median(difference) <= 1.5
        assert difference.max() <= (2 if "JPEG" not in kind else 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_that_of_transformers(orientation, kind, tmp_path):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    content = encode(grey(40, 24).convert("RGB"), kind, exif=exif)
    (tmp_path / "picture").write_bytes(content)
    expected = np.asarray(load_image(str(tmp_path / "picture")))
    np.testing.assert_array_equal(np.asarray(read_picture(content).image), expected)


def test_unusual_conversions_of_values_are_logged():
    assert read_picture(KINDS["12 bits in a 16-bit PNG"](8, 8)[0]).note == (
        "16-bit files with values of at most 4,095 were read as 12-bit"
    )
    assert (
        read_picture(KINDS["float TIFF with its range"](8, 8)[0]).note == "Values from 0 to 1 were scaled to 0 to 255"
    )
    assert read_picture(KINDS["16-bit PNG"](8, 8)[0]).note is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: tiff(ramp(8, 8, top=1).astype("f4")), "it holds floating-point values and does not state their range"),
        (lambda: tiff(ramp(8, 8).astype("i4")), "it holds 32-bit integer values and does not state their range"),
        (lambda: tiff(np.full((8, 8), np.nan, "f4"), _340=0.0, _341=1.0), "it holds NaN or infinite values"),
    ],
)
def test_error_for_values_without_a_range_names_the_image(content, reason, tmp_path):
    folder = write_folder(tmp_path / "photos", {"odd": content()})
    with pytest.raises(InputError, match=f"{re.escape(str(folder))}.*cannot be read: {re.escape(reason)}"):
        decode_test(
            folder, processor=build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())[1]
        )


def write_folder(folder, contents, *, copies=4):
    """train/ and test/ with one folder per class; every content as a file of each class, in train `copies` times."""
    for split, count in (("train", copies), ("test", 1)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number, (kind, content) in enumerate(contents.items()):
                for copy in range(count):
                    (folder / split / name / f"{number:02d} {kind} {copy}.img.png").write_bytes(content)
    return folder


def write_parquet(folder, contents):
    saved = _as_datasets(contents)
    folder.mkdir()
    for split, rows in saved.items():
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def write_saved(folder, contents):
    _as_datasets(contents).save_to_disk(folder)
    return folder


def _as_datasets(contents, copies=4):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES))
    splits = {}
    for split, count in (("train", copies), ("test", 1)):
        images = [{"bytes": content, "path": None} for content in contents.values() for _ in range(count)]
        rows = {"image": images * 2, "label": [0] * len(images) + [1] * len(images)}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(splits)


WAYS_IN = {"folder": write_folder, "parquet": write_parquet, "save_to_disk": write_saved}


@pytest.fixture(scope="module", params=["cnn", "cnn of 64 x 64", "vit"])
def published(request, tmp_path_factory):
    """A model folder as it is pushed, with a head that tells pictures apart."""
    name = request.param.split()[0]
    given = {"backbone": "resnet10t", "backbone_weights": "random"} if name == "vit" else {}
    given |= {"image_size": 64} if "64" in request.param else {}
    torch.manual_seed(0)
    model, processor = build_model(name, labels=CLASSES, options=find_family(name).recipe_options(**given))
    last = model.head if name == "vit" else model.classifier[-1]
    pixels = processor(grey(96, 96).convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        torch.nn.init.normal_(last.weight, std=1)
        last.bias.sub_(model.eval()(pixel_values=pixels).logits[0])  # undecided, so that small differences show
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("way", WAYS_IN)
def test_eval_and_pipeline_give_the_same_probabilities(way, published, tmp_path):
    contents = {f"{kind} {size}": KINDS[kind](*SIZES[size])[0] for kind in KINDS for size in SIZES}
    folder = WAYS_IN[way](tmp_path / "photos", contents)
    model, processor = load_model(folder=published)
    splits = decode_test(folder, processor=processor)
    result = evaluate_model(model=model, processor=processor, splits=splits, split="test", identity={"model": "m"})
    classify = pipeline("image-classification", model=str(published), trust_remote_code=True, device="cpu")
    assert np.ptp(result.probabilities[:, 0]) > 0.05
    for number, (kind, content) in enumerate(contents.items()):
        if kind.rpartition(" ")[0] in NOT_IN_PIPELINES:
            picture = read_picture(content).image  # the same pixels, given to the pipeline as they are
        else:
            (tmp_path / "one").write_bytes(content)
            picture = str(tmp_path / "one")
        answers = {answer["label"]: answer["score"] for answer in classify(picture)}
        np.testing.assert_allclose(
            [answers[name] for name in CLASSES], result.probabilities[number], atol=1e-4, err_msg=kind
        )


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


def decode_test(folder, *, processor):
    data = DataArguments(dataset=str(folder), classes=CLASSES)
    return load_images(data, seed=0).decode("test", processor=processor)


def test_each_file_is_read_once_and_not_again_by_the_next_call(published, tmp_path, monkeypatch):
    processor = load_model(published)[1]
    folder = write_folder(tmp_path / "photos", {str(n): encode(grey(40 + n, 50), "PNG") for n in range(4)})
    read = []
    monkeypatch.setattr("hfprobe.data.decoding.read_picture", lambda content: read.append(1) or read_picture(content))
    for _ in range(2):
        decode_test(folder, processor=processor)
        assert len(read) == 2 * 4


def test_two_processes_may_decode_the_same_images_at_once(tmp_path, monkeypatch):
    processor = build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())[1]
    folder = write_folder(tmp_path / "photos", {"a": encode(grey(40, 50), "PNG")})
    found = []

    def read(content):
        monkeypatch.undo()
        monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: tmp_path / "cache")
        found.append(decode_test(folder, processor=processor).test.images)  # the other one is done first
        return read_picture(content)

    monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("hfprobe.data.decoding.read_picture", read)
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
