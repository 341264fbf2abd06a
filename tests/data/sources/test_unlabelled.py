import re
import shutil

import datasets
import numpy as np
import PIL.Image
import pytest

from helpers.image_folders import write_images
from hfprobe.data.sources.unlabelled import read_unlabelled
from hfprobe.system.errors import InputError


@pytest.fixture
def photos(tmp_path):
    """Six images in a folder, at two depths and in folders that have the names of splits and classes."""
    folder = tmp_path / "photos"
    write_images(folder / "test", names=["cat"], count=3)
    write_images(folder, names=["new"], count=3, first=3)
    (folder / "notes.txt").write_text("no image")
    return folder


def as_table(photos, **columns):
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    return {"file_name": paths} | {name: [value] * len(paths) for name, value in columns.items()}


def as_csv(photos):
    file = photos / "list.csv"
    file.write_text("\n".join(["file_name", *as_table(photos)["file_name"]]))
    return file


def as_parquet(photos):
    """With the images themselves, under a usual name of the column, and no label."""
    contents = [{"bytes": path.read_bytes(), "path": None} for path in sorted(photos.rglob("*.png"))]
    file = photos.parent / "more.parquet"
    rows = datasets.Dataset.from_dict({"img": contents}, features=datasets.Features(img=datasets.Image()))
    rows.to_parquet(file)
    return file


def as_saved(photos):
    """Two splits, of which one has labels."""
    images = [PIL.Image.open(path) for path in sorted(photos.rglob("*.png"))]
    splits = {
        "a": datasets.Dataset.from_dict({"image": images[:4]}).cast_column("image", datasets.Image()),
        "b": datasets.Dataset.from_dict({"image": images[4:], "label": [0, 1]}).cast_column("image", datasets.Image()),
    }
    datasets.DatasetDict(splits).save_to_disk(photos.parent / "saved")
    return photos.parent / "saved"


def as_zip(photos):
    return shutil.make_archive(str(photos.parent / "packed"), "zip", photos)


@pytest.mark.parametrize("kind", [lambda photos: photos, as_csv, as_parquet, as_saved, as_zip])
def test_all_images_of_a_place_are_found_whatever_their_folders_and_splits(photos, kind):
    rows = read_unlabelled(str(kind(photos)))
    assert rows.column_names == ["image"]
    decoded = rows.cast_column("image", datasets.Image())["image"]
    expected = [np.asarray(PIL.Image.open(path)) for path in sorted(photos.rglob("*.png"))]
    found = sorted(np.asarray(image.convert("RGB")).tobytes() for image in decoded)
    assert found == sorted(pixels.tobytes() for pixels in expected)


def test_places_without_images_are_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("name,colour\nx,red\n")
    (tmp_path / "text.txt").write_text("x")
    for place, message in {
        str(tmp_path / "empty"): "no image",
        str(tmp_path / "table.csv"): "has no image column; its columns: name, colour. Pass one of them as --image_col",
        str(tmp_path / "text.txt"): "is a file of another kind. Allowed: a folder of images, a CSV or parquet file",
        str(tmp_path / "gone"): "does not exist. Allowed: a folder of images",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)) as refused:
            read_unlabelled(place)
        assert "\n" not in str(refused.value)


def test_the_image_column_of_the_labelled_images_also_holds_for_tables(photos):
    file = photos / "list.csv"
    paths = as_table(photos)["file_name"]
    file.write_text("\n".join(["where", *paths]))
    assert len(read_unlabelled(str(file), image_column="where")) == len(paths)
