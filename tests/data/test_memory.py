"""Images that a Python program passes: a Dataset, a DataFrame, arrays, tensors."""

import re
from io import BytesIO

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import hfprobe
from helpers.images import draw_images, make_dataset
from hfprobe.models import build_model, find_family
from hfprobe.system.errors import InputError

COUNT = 30
NAMES = ["cat", "dog", "emu"]


@pytest.fixture(scope="module")
def processor():
    return build_model("cnn", labels=NAMES, options=find_family("cnn").recipe_options())[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """(N, 32, 32, 3) pixels, the names of their classes, and their files, which a CSV file lists."""
    pixels, numbers = draw_images(COUNT, classes=3)
    labels = [NAMES[number] for number in numbers]
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for path, image in zip(paths, pixels, strict=True):
        PIL.Image.fromarray(image).save(path)
    pd.DataFrame({"file": [path.name for path in paths], "class": labels}).to_csv(folder / "all.csv", index=False)
    return pixels, labels, paths


def as_dataset(paths, labels, **columns):
    rows = datasets.Dataset.from_dict({"image": list(map(str, paths)), "label": labels, **columns})
    return rows.cast_column("image", datasets.Image())


def frame(images, labels):
    return pd.DataFrame({"file": pd.Series(list(images), dtype=object), "class": labels})


WAYS = {
    "a Dataset": lambda pixels, labels, paths: as_dataset(paths, labels),
    "a Dataset of paths": lambda pixels, labels, paths: datasets.Dataset.from_dict(
        {"image": list(map(str, paths)), "label": labels}
    ),
    "a Dataset as tensors": lambda pixels, labels, paths: as_dataset(paths, labels).with_format("torch"),
    "a DatasetDict": lambda pixels, labels, paths: datasets.DatasetDict(training=as_dataset(paths, labels)),
    "a DataFrame of paths": lambda pixels, labels, paths: frame(paths, pd.Categorical(labels)),
    "a DataFrame of arrays": lambda pixels, labels, paths: frame(pixels, labels),
    "a DataFrame of a Dataset": lambda pixels, labels, paths: as_dataset(paths, labels).to_pandas(),
    "arrays": lambda pixels, labels, paths: (pixels, np.array(labels)),
    "tensors": lambda pixels, labels, paths: (torch.from_numpy(pixels).permute(0, 3, 1, 2), labels),
    "tensors, channels last": lambda pixels, labels, paths: (torch.from_numpy(pixels), labels),
    "PIL images": lambda pixels, labels, paths: ([PIL.Image.fromarray(one) for one in pixels], pd.Series(labels)),
    "opened files": lambda pixels, labels, paths: (list(map(PIL.Image.open, paths)), labels),
    "bytes": lambda pixels, labels, paths: ([path.read_bytes() for path in paths], labels),
    "dicts": lambda pixels, labels, paths: ([{"bytes": None, "path": str(path)} for path in paths], labels),
}


@pytest.fixture(scope="module")
def by_file(images):
    return hfprobe.load_images(images[2][0].parent / "all.csv", seed=5)


@pytest.mark.parametrize("way", WAYS)
def test_images_in_memory_are_those_of_the_csv_file(way, images, by_file, processor):
    found = hfprobe.load_images(WAYS[way](*images), seed=5)
    assert (found.class_names, found.counts()) == (NAMES, by_file.counts())
    prints = {images.decode("train", processor=processor).fingerprint for images in (found, by_file)}
    assert len(prints) == 1


MANY = 120


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.arange(MANY) % 12, [str(number) for number in range(12)]),
        (torch.arange(MANY)[:, None] % 2, ["0", "1"]),
        ([str(number % 11) for number in range(MANY)], [str(number) for number in range(11)]),
        ([np.int64(number % 2) for number in range(MANY)], ["0", "1"]),
        ([torch.tensor(number % 2) for number in range(MANY)], ["0", "1"]),
        ([bool(number % 2) for number in range(MANY)], ["false", "true"]),
        (pd.Series([1.0, 2.0] * 50 + [None] * 20), ["1", "2"]),
        (["cat", "dog"] * 48 + [None, pd.NA, float("nan"), ""] * 6, ["cat", "dog"]),
    ],
)
def test_class_names_are_the_labels_in_the_order_of_numbers_or_letters(labels, names):
    found = hfprobe.load_images((np.zeros((MANY, 4, 4), np.uint8), labels))
    assert found.class_names == names
    missing = 20 if isinstance(labels, pd.Series) else 24 if "cat" in names else 0
    assert sum(sum(counts) for counts in found.counts().values()) == MANY - missing


def test_grey_arrays_are_grey_images(images, processor):
    grey = images[0][..., 0]
    rgb = np.repeat(grey[..., None], 3, axis=3)
    found = [hfprobe.load_images((pixels, images[1])).decode("test", processor=processor) for pixels in (grey, rgb)]
    assert found[0].fingerprint == found[1].fingerprint
    assert (found[0].test.images == found[0].test.images[..., :1]).all()


def test_columns_of_splits_and_of_groups_are_read_as_in_a_csv_file(images):
    pixels, labels, _ = images
    table = frame(pixels, labels).assign(split=["train"] * 21 + ["test"] * 9)
    assert hfprobe.load_images(table).counts()["test"] == [3, 3, 3]
    table = frame(pixels, labels).assign(patient=[number // 3 for number in range(24)] + [None] * 6)
    found = hfprobe.load_images(table, group_column="patient")
    groups = [set(rows["group"]) - {""} for rows in found.parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 8


def first_pixels(images, processor):
    part = images.decode("test", processor=processor).test
    return part.images[:, 0, 0].tolist()


def test_other_rows_of_one_file_never_share_a_cache_entry(tmp_path, processor):
    """Both are rows 0 to 99 of a Dataset whose pixels are in the same Arrow file."""
    make_dataset()["train"].save_to_disk(tmp_path / "saved")
    rows = datasets.load_from_disk(tmp_path / "saved")
    halves = [rows.select(range(100)), rows.select(range(100, 200)), rows.select(range(100)).shuffle(seed=1)]
    found = [hfprobe.load_images(half, seed=1) for half in halves]
    assert len({images.membership["train"].digest for images in found}) == 3
    assert len({images.arguments.dataset for images in found}) == 3
    for images in found:
        expected = [np.asarray(PIL.Image.open(BytesIO(row["image"]["bytes"])))[0, 0] for row in images.parts["test"]]
        np.testing.assert_array_equal(first_pixels(images, processor), expected)


def test_splits_that_share_a_file_never_share_a_cache_entry(tmp_path, processor):
    make_dataset()["train"].save_to_disk(tmp_path / "saved")
    rows = datasets.load_from_disk(tmp_path / "saved")
    both = datasets.DatasetDict(lab=rows.select(range(100)), field=rows.select(range(100, 200)))
    found = [first_pixels(hfprobe.load_images(both, train_split=name), processor) for name in both]
    assert found[0] != found[1]


@pytest.mark.parametrize("saved", [False, True])
def test_two_columns_of_images_never_share_a_cache_entry(images, tmp_path, processor, saved):
    _, labels, paths = images
    rows = as_dataset(paths, labels, mask=list(map(str, reversed(paths)))).cast_column("mask", datasets.Image())
    rows = rows.map(lambda row: row)  # the images are in the Arrow file
    rows.save_to_disk(tmp_path / "saved")
    source = tmp_path / "saved" if saved else datasets.load_from_disk(tmp_path / "saved")
    found = [
        first_pixels(hfprobe.load_images(source, image_column=name), processor) for name in (None, "mask", "image")
    ]
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_the_name_depends_on_the_content(images):
    pixels, labels, _ = images
    found = [hfprobe.load_images((images, labels)) for images in (pixels, pixels.copy(), pixels[::-1])]
    names = [images.arguments.dataset for images in found]
    assert names[0] == names[1] != names[2]
    assert all(re.fullmatch("memory:[0-9a-f]{8}", name) for name in names)
    assert repr(found[0]).startswith(f"Images of images and labels in memory ({names[0][7:]}): 19 train, 5 val")


@pytest.mark.hostile
def test_images_in_memory_cannot_be_loaded_by_their_name():
    with pytest.raises(
        hfprobe.InputError,
        match=re.escape(
            "The images 'memory:12345678' were passed by a Python program and are not kept. Pass them again"
        ),
    ):
        hfprobe.load_images("memory:12345678")


ARRAYS = np.zeros((4, 8, 8, 3), np.uint8)
LABELS = [0, 1, 0, 1]


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "dataset is an object of type int; allowed: a hub id, a folder or a file; a datasets.Dataset or Data"),
        (None, "dataset is an object of type NoneType; allowed:"),
        ([ARRAYS, LABELS], "dataset is a list of 2; allowed:"),
        ((ARRAYS, LABELS, LABELS), "dataset is a tuple of 3; allowed:"),
        (ARRAYS, "dataset is an array of shape (4, 8, 8, 3) with uint8 values; allowed:"),
        (datasets.Dataset.from_dict({"image": ["a"]}).to_iterable_dataset(), "dataset is an object of type Iterable"),
        (
            (ARRAYS / 255, LABELS),
            "Image 0 cannot be used: it is an array of shape (8, 8, 3) with float64 values fro",
        ),
        ((ARRAYS / 255, LABELS), "If its values are from 0 to 1, multiply by 255, round, and convert to uint8."),
        ((ARRAYS.transpose(0, 3, 1, 2), LABELS), "Move the channels to the end: array.transpose(1, 2, 0)."),
        ((torch.zeros(4, 8, 8, 4, dtype=torch.uint8), LABELS), "it is a tensor of shape (8, 8, 4) with uint8 values."),
        ((torch.zeros(4, 3, 8, 3, dtype=torch.uint8), LABELS), "Its shape does not say which axis has the channels"),
        ((ARRAYS, LABELS[1:]), "There are 4 images and 3 labels; allowed: one label per image."),
        ((ARRAYS, np.eye(4)), "The labels are an array of shape (4, 4) with float64 values from 0 to 1; allowed: N l"),
        ((ARRAYS, [0, 0.5, 1, 1]), "A label is 0.5; allowed: whole numbers, text, or true and false."),
        ((ARRAYS, [0, "cat", 1, 1]), "The labels are of type int, str; allowed: all int, all str or all bool"),
        ((ARRAYS, [[0], [1], [0], [1]]), "The labels are of type list; allowed:"),
        ((ARRAYS, 3), "The labels are an object of type int; allowed:"),
        (("photos", LABELS), "The images are an object of type str; allowed:"),
        ((ARRAYS[0, 0], LABELS), "The images are an array of shape (8, 3) with uint8 values; allowed:"),
        (([ARRAYS[0], 7, None, None], LABELS), "Image 1 cannot be used: it is an object of type int. Allowed: paths"),
        (frame([], []), "The DataFrame has no rows. Add one row per image."),
        (pd.DataFrame({"file": ["a"], "kind": ["b"]}), "has no label column; its columns: file, kind. Pass one of th"),
        (pd.DataFrame([["a", "b", "c"]], columns=["file", "class", "class"]), "has two columns 'class'. Rename one of"),
        (
            datasets.Dataset.from_dict({"image": ["a", "b"]}),
            "has no label column; its columns: image. Pass one of t",
        ),
        (as_dataset([], []), "Split 'train' of the images in memory is empty. Add images to it."),
    ],
)
def test_what_is_no_dataset_is_refused(images, message):
    with pytest.raises(hfprobe.InputError, match=re.escape(message)):
        hfprobe.load_images(images)


@pytest.mark.hostile
def test_settings_without_an_effect_are_refused():
    for settings in ({"image_column": "x"}, {"dataset_config": "x"}):
        with pytest.raises(hfprobe.InputError, match=r"has no effect for images and labels in memory\. "):
            hfprobe.load_images((ARRAYS, LABELS), **settings)


@pytest.mark.hostile
def test_missing_and_damaged_images_are_named_before_anything_is_decoded(images, processor, monkeypatch):
    pixels, labels, _ = images
    items = [*pixels[:-3], None, b"no image", "nowhere.png"]
    monkeypatch.setattr(
        "hfprobe.data.pixels.decoded_rows.read_image", lambda *_, **__: pytest.fail("an image was decoded")
    )
    with pytest.raises(hfprobe.InputError) as error:
        hfprobe.load_images((items, labels)).decode("train", "validation", processor=processor)
    assert str(error.value).startswith("3 images: Image ")
    for text in (
        "image 27 of split 'train' cannot be read: the row holds no image",
        "image 28 of split 'train' cannot be read: not an image",
        "image 29 of split 'train' (nowhere.png) cannot be read: No such file or directory",
    ):
        assert text in str(error.value).replace("Image", "image")


def test_a_dataset_of_answers_of_a_model_is_refused():
    rows = datasets.Dataset.from_dict({name: ["x"] for name in ("path", "label", "predicted_label", "probability")})
    with pytest.raises(InputError, match="The Dataset is a table of hfprobe predict"):
        hfprobe.load_images(rows)
