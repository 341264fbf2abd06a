import io
import logging
import re
import shutil
import zipfile

import pytest

from helpers.image_folders import check_drawn, draw, find, load, write_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.file_kinds import SYSTEM
from hfprobe.data.splits.images import load_images
from hfprobe.system.errors import InputError


def write_zip(file, members):
    """A zip file with these contents; an image in place of a content that is None."""
    image = io.BytesIO()
    draw(1, 1).save(image, "PNG")
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, image.getvalue() if content is None else content)
    return file


@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_zip_file_of_class_folders_is_unpacked_once(tmp_path, top, monkeypatch):
    write_images(tmp_path / "photos", count=25)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted((tmp_path / "photos").rglob("*.png")):
            archive.write(file, top + str(file.relative_to(tmp_path / "photos")))
        archive.writestr("__MACOSX/._x.png", b"")
    splits = load(tmp_path / "photos.zip")
    check_drawn(splits, count=25)
    assert splits.source == f"local file {tmp_path}/photos.zip"
    assert splits.summary.left_out == {SYSTEM: ["__MACOSX"]}
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("unpacked again"))
    load(tmp_path / "photos.zip")


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "cat/../../outside.png", "C:\\outside.png"])
def test_a_zip_file_with_a_member_outside_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat/1.png", b"x")
        archive.writestr(zipfile.ZipInfo(name), b"x")
    shown = name.replace("\\", "/")
    expected = (
        f"'{tmp_path}/photos.zip' holds '{shown}', a path outside its own folder. Nothing was unpacked; make the zip "
        "file again from inside the folder."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load(tmp_path / "photos.zip")


def test_a_damaged_zip_file_is_refused(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"no zip")
    with pytest.raises(
        InputError, match=r"cannot be unpacked: File is not a zip file. Pass an intact zip file without a"
    ):
        load(tmp_path / "photos.zip")


def test_a_zip_file_whose_members_are_damaged_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(10_000) + b"x" * 10_000)
    content = bytearray((tmp_path / "photos.zip").read_bytes())
    content[45:60] = b"\xff" * 15
    (tmp_path / "photos.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be unpacked: .* Pass an intact zip file"):
        load(tmp_path / "photos.zip")


@pytest.mark.parametrize("top", ["", "photos\\", "train\\", "a\\seg_train\\seg_train\\"])
def test_backslashes_in_names_are_between_folders(tmp_path, top):
    members = {f"{top}{name}\\{number}.png": None for name in ("cat", "dog") for number in range(5)}
    write_zip(tmp_path / "photos.zip", members | {f"{top}cat\\": b""})
    images = load_images(DataArguments(dataset=str(tmp_path / "photos.zip")), seed=0)
    assert images.class_names == ["cat", "dog"]
    assert sum(map(sum, images.counts().values())) == 10
    assert images.left_out == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "cat\\1.png"], "holds two files that are both named 'cat/1.png' here. Nothing was unpacked;"),
        (["cat/1.png", "./cat//1.png"], "holds two files that are both named 'cat/1.png' here. Nothing was unpacked;"),
        (["cat/1.png", "cat"], "holds 'cat' as a file and as a folder. Nothing was unpacked; make the zip file again."),
    ],
)
def test_names_that_cannot_be_files_of_one_folder_are_refused(tmp_path, names, message):
    file = write_zip(tmp_path / "photos.zip", dict.fromkeys(names))
    with pytest.raises(InputError, match="^" + re.escape(f"'{file}' {message}")):
        load(file)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"cat/1.png": None, "dog/x.txt": b""}, "'{}' holds images of one class, cat; allowed: two or more"),
        ({"a/cat/1.png": None, "a/cat/2.png": None}, "'{}/a' holds images of one class, cat; allowed: two or more"),
        ({}, "Dataset folder '{}' is empty. Allowed:"),
        ({"1.png": None, "2.png": None}, "Dataset folder '{}' holds 2 images in no class folder. Allowed:"),
        ({"train/1.png": None, "test/1.png": None}, "Split 'train' of '{}' holds 1 image in no class folder."),
        ({"cat/1.png": b"x", "dog/1.png": None}, "Class cat has a single image to train; allowed: 3 or more"),
        (
            {f"{name}/{n}.png": b"x" for name in "ab" for n in range(3)},
            "of split 'train' ({}/a/",
        ),
    ],
)
def test_an_error_about_a_zip_file_names_it(tmp_path, members, message):
    file = write_zip(tmp_path / "photos.zip", members)
    with pytest.raises(InputError) as refused:
        load(file)
    assert message.format(file) in str(refused.value)
    assert "unpacked" not in str(refused.value)


def test_images_of_a_zip_file_that_are_left_out_are_named_by_it(tmp_path):
    members = {f"{name}/{number}.png": None for name in ("cat", "dog") for number in range(9)}
    file = write_zip(tmp_path / "photos.zip", members | {"cat/bad.png": b"x"})
    expected = f"image 9 of split 'train' ({file}/cat/bad.png) cannot be read: not an image"
    assert load(file, skip_unreadable=True).summary.left_out == {"cannot be read": [expected]}


def test_the_encoding_of_names_is_chosen_and_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    names = ["表/1.png".encode("cp932"), "能/1.png".encode("cp932")]  # their second bytes are backslashes
    file = write_zip(tmp_path / "photos.zip", {f"{n}{'x' * (len(name) - 1)}": None for n, name in enumerate(names)})
    content = file.read_bytes()
    for number, name in enumerate(names):
        content = content.replace(f"{number}{'x' * (len(name) - 1)}".encode(), name)
    file.write_bytes(content)
    images = load_images(DataArguments(dataset=str(file)), seed=0, whole=True)
    assert images.class_names == ["能", "表"]
    assert f"Names in '{file}' do not state their encoding; they are read as cp932." in caplog.messages


def test_advice_on_a_path_in_a_zip_file_says_to_unpack_it(tmp_path):
    photos = write_images(tmp_path / "photos" / "pets")
    draw(1, 0).save(tmp_path / "photos" / "preview.png")
    assert photos.is_dir()
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    with pytest.raises(InputError, match=r"pass --dataset '.*photos.zip/pets'. Unpack the zip file first."):
        find(tmp_path / "photos.zip")


def test_archives_in_a_folder_are_named(tmp_path):
    (tmp_path / "cat-samples.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"archives in a folder are not read \(unpack them\)"):
        find(tmp_path)
