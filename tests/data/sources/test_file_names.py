"""File names that are not UTF-8: on their way into a dataset and back to the file."""

import os
import re

import pytest

from helpers.image_folders import check_drawn, draw, load, write_images
from hfprobe.data.sources.file_names import path_to_text, text_to_path
from hfprobe.system.errors import InputError

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture
def photos(tmp_path):
    """Images whose file names and one subfolder have names in Latin-1."""
    photos = write_images(tmp_path / "photos", count=25)
    for file in list(photos.rglob("*.png")):
        file.rename(file.with_name(f"{LATIN} {file.name}"))
    (photos / "dog" / LATIN).mkdir()
    for file in sorted((photos / "dog").glob("*.png"))[:3]:
        file.rename(photos / "dog" / LATIN / file.name)
    return photos


def test_images_with_names_that_are_not_utf_8_are_read_and_named_by_escapes(photos, monkeypatch):
    splits = load(photos)
    check_drawn(splits, count=25)
    assert all(re.search(r"/caf\\udce9 \d+\.png$", name) for name in splits.test.files)
    monkeypatch.setattr("hfprobe.data.pixels.decoded_rows.read_image", lambda _: pytest.fail("decoded again"))
    assert load(photos).fingerprint == splits.fingerprint


def test_a_replaced_image_with_such_a_name_is_decoded_again(photos):
    before = load(photos).fingerprint
    draw(99, 0).save(photos / "cat" / f"{LATIN} 000.png")
    assert load(photos).fingerprint != before


def test_other_files_and_unreadable_images_with_such_names_are_named_by_escapes(photos):
    (photos / "cat" / f"{LATIN}.txt").touch()
    (photos / "cat" / f"{LATIN}.png").touch()
    splits = load(photos, skip_unreadable=True)
    assert splits.summary.left_out["not an image"] == ["cat/caf\\udce9.txt"]
    assert (
        rf"{photos}/cat/caf\udce9.png) cannot be read: the file is empty"
        in splits.summary.left_out["cannot be read"][0]
    )


def test_a_class_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    write_images(tmp_path, names=["dog", LATIN])
    expected = rf"The name of the class folder 'caf\udce9' in '{tmp_path}' is not UTF-8. Rename it, for example with"
    with pytest.raises(InputError, match=re.escape(expected)):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "café", "a\\udc.png", "a\\udce9.png", LATIN, f"{LATIN}/\\ude00", "\\udce9"])
def test_a_path_as_text_is_found_again(tmp_path, name):
    path = str(tmp_path / name)
    os.makedirs(path)
    text = path_to_text(path)
    text.encode()  # raises if it is not UTF-8
    assert text_to_path(text) == path


def test_two_names_that_would_be_written_alike_are_refused(tmp_path):
    (tmp_path / LATIN).touch()
    (tmp_path / "caf\\udce9").touch()
    with pytest.raises(InputError, match=r"The names of two files are both written '.*/caf\\udce9': one holds bytes"):
        path_to_text(str(tmp_path / LATIN))
