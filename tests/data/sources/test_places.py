import os

import pytest

from hfprobe.data.sources.places import find_places


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with photos/, a table beside it, and images elsewhere."""
    for folder in ("work/photos/test/cat", "work/photos/dog", "disk/dog", "disk/val", "data/images/a"):
        (tmp_path / folder).mkdir(parents=True)
    os.symlink(tmp_path / "disk" / "dog", tmp_path / "work" / "photos" / "test" / "dog")
    os.symlink(tmp_path / "disk" / "val", tmp_path / "work" / "photos" / "val")
    rows = '\ufefffile;label\nphotos/dog/1.jpg;dog\n"../data/images/a/2.jpg";"a;b"\n../nowhere/3.jpg;dog\n4.jpg;cat\n'
    for table in ("work/labels.csv", "data/labels.TSV"):
        (tmp_path / table).write_text(rows, encoding="utf-8")
    (tmp_path / "work" / "photos.zip").touch()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "places"),
    [
        ("photos", ["photos", "photos/val", "photos/test/dog"]),  # and where links in it lead to
        ("./photos/", ["photos", "photos/val", "photos/test/dog"]),
        ("photos.zip", ["photos.zip"]),
        ("labels.csv", ["labels.csv", "photos/dog", "../data/images/a"]),  # the working directory is not its folder
        ("../data/labels.TSV", ["../data/labels.TSV", "../data", "../data/../data/images/a"]),
        *((name, []) for name in ("owner/name", "a\0b", "a" * 300, "", None, 3)),
    ],
)
def test_the_places_of_a_dataset_are_its_folder_and_those_of_its_images(home, dataset, places):
    assert sorted(map(os.path.normpath, find_places(dataset))) == sorted(map(os.path.normpath, places))
