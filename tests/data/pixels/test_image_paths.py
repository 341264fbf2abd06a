import os
import re

import PIL.Image
import pytest

from hfprobe.data.pixels.image_paths import find_images
from hfprobe.system.errors import InputError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Files with the names of images, none of which is opened, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        "raw.heic",
        ".hidden.jpg",
        "cats/c.jpg",
        ".trash/d.jpg",
        "cats/e/f.tif",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_gives_its_images_and_those_of_its_subfolders_without_hidden_ones(photos):
    found = ["photos/a.PNG", "photos/b.jpg", "photos/cats/c.jpg", "photos/cats/e/f.tif"]
    assert find_images(["photos"]) == found
    assert find_images(["photos/"]) == found


@pytest.mark.parametrize(
    "name", ["@eaDir", "#recycle", "$Recycle.Bin", ".thumbnails", "Thumbs", "__MACOSX", "lost+found"]
)
def test_system_folders_are_left_out_and_named(photos, name, caplog):
    caplog.set_level("INFO", logger="hfprobe")
    for place in (photos / name, photos / "cats" / name / "c.jpg", photos / "cats" / "e" / name):
        place.mkdir(parents=True)
        (place / "thumb.jpg").touch()
    found = ["photos/a.PNG", "photos/b.jpg", "photos/cats/c.jpg", "photos/cats/e/f.tif"]
    skipped = [*sorted([f"photos/{name}", "photos/.trash"]), f"photos/cats/{name}", f"photos/cats/e/{name}"]
    message = "Left out ({}), folder of thumbnails, deleted files or another program: {}."
    assert find_images(["photos"]) == found
    assert message.format(len(skipped), ", ".join(skipped)) in caplog.messages
    assert find_images(["photos/**/*.jpg"]) == ["photos/b.jpg", "photos/cats/c.jpg"]
    listed = [f"photos/{name}", "photos/a.PNG", "photos/b.jpg", "photos/cats"]  # as a shell lists photos/*
    assert name.startswith(".") or find_images(listed) == found
    # Named by itself, or by a file in it, it is wanted.
    assert find_images([f"photos/{name}"]) == [f"photos/{name}/thumb.jpg"]
    assert find_images([f"photos/{name}/*.jpg"]) == [f"photos/{name}/thumb.jpg"]
    assert find_images([f"photos/{name}/thumb.jpg", "photos/b.jpg"]) == [f"photos/{name}/thumb.jpg", "photos/b.jpg"]


def test_files_with_other_endings_are_counted(photos, caplog):
    caplog.set_level("INFO", logger="hfprobe")
    find_images(["photos"])
    assert "by their endings: 1 not an image; 1 HEIC cannot be read without pillow-heif (pip " in caplog.text
    caplog.clear()
    assert find_images(["photos/notes.txt", "photos/.hidden.jpg"]) == ["photos/notes.txt", "photos/.hidden.jpg"]
    assert caplog.text == ""


def test_every_image_is_listed_once_at_its_first_place(photos):
    (photos / "again").symlink_to("cats")
    (photos / "loop").symlink_to("..")
    (photos / "same.jpg").symlink_to("b.jpg")
    named = ["photos/cats/../b.jpg", "photos/cats", "photos", str(photos), "photos/*.jpg", "./photos/a.PNG"]
    assert find_images(named) == [
        "photos/cats/../b.jpg", "photos/cats/c.jpg", "photos/cats/e/f.tif", "photos/a.PNG",
    ]  # fmt: skip


def test_links_are_followed(photos, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "folder").symlink_to(photos / "cats")
    (tmp_path / "more" / "file.jpg").symlink_to(photos / "b.jpg")
    (tmp_path / "more" / "broken.jpg").symlink_to("nowhere")
    assert find_images(["more"]) == ["more/broken.jpg", "more/file.jpg", "more/folder/c.jpg", "more/folder/e/f.tif"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("photos/*.jpg", ["photos/b.jpg"]),
        ("photos/**/*.jpg", ["photos/b.jpg", "photos/cats/c.jpg"]),
        ("photos/[ab].*", ["photos/a.PNG", "photos/b.jpg"]),
        ("photos/c*", ["photos/cats/c.jpg", "photos/cats/e/f.tif"]),
        ("photos/c*/", ["photos/cats/c.jpg", "photos/cats/e/f.tif"]),
        ("*/notes.*", ["photos/notes.txt"]),
    ],
)
def test_patterns_are_expanded_as_by_a_shell(photos, pattern, found):
    assert find_images([pattern]) == found


def test_an_existing_path_with_the_signs_of_a_pattern_is_no_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x[1]/IMG[2].jpg", "x[1]/IMG2.jpg", "x1/IMG2.jpg", "what?.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(["x[1]/IMG[2].jpg"]) == ["x[1]/IMG[2].jpg"]
    assert find_images(["x[1]"]) == ["x[1]/IMG2.jpg", "x[1]/IMG[2].jpg"]
    assert find_images(["x[1]/IMG?.jpg"]) == ["x[1]/IMG2.jpg"]
    assert find_images(["what?.jpg"]) == ["what?.jpg"]
    assert find_images([f"{tmp_path}/x[1]/*2.jpg"]) == [f"{tmp_path}/x[1]/IMG2.jpg"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"photos/b.jpg\nphotos/cats\n", ["photos/b.jpg", "photos/cats/c.jpg", "photos/cats/e/f.tif"]),
        (b"photos/b.jpg\r\n\r\nphotos/a.PNG", ["photos/b.jpg", "photos/a.PNG"]),
        (b"two\nlines.jpg\0photos/b.jpg\0", ["two\nlines.jpg", "photos/b.jpg"]),
        (b"*.jpg\nmissing.jpg\n", ["*.jpg", "missing.jpg"]),
        (b"caf\xe9.jpg\n", [os.fsdecode(b"caf\xe9.jpg")]),
    ],
)
def test_paths_on_standard_input(photos, content, found):
    assert find_images(["-"], read_input=content) == found


def test_an_image_on_standard_input_is_refused(tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    expected = "Standard input holds an image, not a list of paths. Save it, and pass the path of the file."
    with pytest.raises(InputError, match=re.escape(expected)):
        find_images(["-"], read_input=(tmp_path / "a.png").read_bytes())


def test_an_archive_among_others_is_a_file_that_cannot_be_read(photos):
    (photos / "new.zip").touch()
    assert find_images(["photos/new.zip", "photos/b.jpg"]) == ["photos/new.zip", "photos/b.jpg"]
    assert find_images(["-"], read_input=b"photos/new.zip") == ["photos/new.zip"]


def test_a_named_pipe_in_a_folder_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "a.jpg").touch()
    assert find_images([str(tmp_path)]) == [f"{tmp_path}/a.jpg"]


def test_a_folder_that_cannot_be_listed_is_named(photos, monkeypatch, caplog):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("cats"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:  # pytest lists folders too, to remove them
        patch.setattr(os, "scandir", refuse)
        assert find_images(["photos"]) == ["photos/a.PNG", "photos/b.jpg"]
    assert "The folder 'photos/cats' is left out: Permission denied." in caplog.text


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([], "There is no image to classify. Allowed: folders, files, patterns such as 'photos/*.jpg', and - for"),
        (["empty"], "There is no image in 'empty'. Allowed: folders, files"),
        (["empty", "-"], "There is no image in 'empty', '-'. Allowed: folders, files"),
        (["missing.jpg"], "'missing.jpg' does not exist. Allowed: folders, files"),
        (["photos/b.jpg", "photos/*.gif"], "The pattern 'photos/*.gif' matches no file. Allowed: folders, files"),
        (["a[b"], "The pattern 'a[b' matches no file."),
        (["photos/b.jpg/*"], "The pattern 'photos/b.jpg/*' matches no file."),
        (["photos/new.zip"], "'photos/new.zip' is an archive. Unpack it, and pass its folder. Allowed: folders, files"),
        (["photos/new.zip", "photos/NEW.TAR"], "'photos/new.zip' is an archive."),
        (["x" * 5000], "' does not exist. Allowed: folders, files"),
    ],
)
def test_places_without_images_are_refused(photos, places, message):
    (photos.parent / "empty").mkdir()
    for name in ("new.zip", "NEW.TAR"):
        (photos / name).touch()
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        find_images(places)
    assert len(str(refused.value)) < 500
