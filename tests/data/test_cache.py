import errno
import os
import re
import tempfile

import datasets
import pytest

from helpers.images import load_splits
from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.system.errors import InputError, MachineError

OTHER_FOLDER = "Set HF_HOME (or HF_DATASETS_CACHE) to a folder that you can write to."
FREE_SPACE = "Free some space, or set HF_HOME (or HF_DATASETS_CACHE) to a folder with free space."


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)


def test_the_variable_in_a_remedy_is_one_that_moves_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "file"))  # HF_HOME does not move it then
    error = cache.cannot_keep("images", tmp_path, OSError(errno.EROFS, "Read-only file system"))
    assert str(error) == (
        f"Cannot keep images in {tmp_path}: Read-only file system. Set HF_DATASETS_CACHE to a folder that you can "
        "write to."
    )


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.EROFS, InputError, OTHER_FOLDER),
        (errno.EACCES, InputError, OTHER_FOLDER),
        (
            errno.ENOSPC,
            MachineError,
            FREE_SPACE,
        ),
        (
            errno.EDQUOT,
            MachineError,
            FREE_SPACE,
        ),
    ],
)
def test_error_for_an_unwritable_cache_names_the_variable(dataset_folder, tmp_path, monkeypatch, number, kind, remedy):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    expected = f"Cannot keep decoded images in {tmp_path}/decoded: {os.strerror(number)}. {remedy}"
    with pytest.raises(kind, match=re.escape(expected)):
        load_splits(DataArguments(dataset=str(dataset_folder)), seed=1)


def test_cache_path_below_a_file_is_an_input_error(dataset_folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "file" / "cache")
    with pytest.raises(InputError, match=re.escape("file/cache/decoded: Not a directory. Set HF_HOME (or HF_DATASETS")):
        load_splits(DataArguments(dataset=str(dataset_folder)), seed=1)


def test_cached_images_are_read_without_writing(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    data = DataArguments(dataset=str(dataset_folder))
    first = load_splits(data, seed=1)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert load_splits(data, seed=1).fingerprint == first.fingerprint


def refuse_writing(*args, **kwargs):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_cached_parquet_files_are_read_without_writing(dataset_folder, tmp_path, monkeypatch):
    place = tmp_path / "cache [1]"
    monkeypatch.setattr(cache, "cache_folder", lambda: place)
    for split, rows in datasets.load_from_disk(dataset_folder).items():
        rows.to_parquet(tmp_path / "data" / f"{split}.parquet")
    data = DataArguments(dataset=str(tmp_path / "data"))
    load_splits(DataArguments(dataset=str(dataset_folder)), seed=1)  # torch makes a folder when it is first used
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse_writing)
        expected = f"Cannot keep the images of '{tmp_path}/data/test.parquet' in {place}/parquet/"
        with pytest.raises(InputError, match=re.escape(expected) + r"\w{32}: Read-only file system. Set HF_HOME "):
            load_splits(data, seed=1)
        patch.setattr(os, "mkdir", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(MachineError, match=r"\w{32}: full. Free some space, or set HF_HOME "):
            load_splits(data, seed=1)
    first = load_splits(data, seed=1)
    for path in place.rglob("*"):
        path.chmod(path.stat().st_mode & 0o555)  # as for a cache that several people share
    monkeypatch.setattr(datasets, "load_dataset", refuse_writing)
    monkeypatch.setattr("hfprobe.data.pixels.decoding.staging_folder", refuse_writing)
    assert load_splits(data, seed=1).fingerprint == first.fingerprint
    save = datasets.load_from_disk(dataset_folder)["train"].select(range(50))
    save.to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(InputError, match="Cannot keep the images of"):  # another file than the one in the cache
        load_splits(data, seed=1)
