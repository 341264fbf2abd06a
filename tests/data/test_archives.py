import zipfile

import pytest

from helpers.picture_folders import check_drawn, load, write_pictures
from hfprobe.system.errors import InputError


@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_zip_file_of_class_folders_is_unpacked_once(tmp_path, top, monkeypatch):
    write_pictures(tmp_path / "photos", count=25)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted((tmp_path / "photos").rglob("*.png")):
            archive.write(file, top + str(file.relative_to(tmp_path / "photos")))
        archive.writestr("__MACOSX/._x.png", b"")
    check_drawn(load(tmp_path / "photos.zip"), count=25)
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("unpacked again"))
    load(tmp_path / "photos.zip")


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "cat/../../outside.png", "C:\\outside.png"])
def test_a_zip_file_with_a_member_outside_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat/1.png", b"x")
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(
        InputError, match=r"a path outside its own folder. Nothing was unpacked; make the zip file again"
    ):
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
