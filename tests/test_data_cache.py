import errno
import os
import re
import tempfile

import pytest
from conftest import load_splits, make_dataset

from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.errors import InputError, MachineError


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.EROFS, InputError, "Set HF_HOME (or HF_DATASETS_CACHE) to a folder that you may write."),
        (errno.EACCES, InputError, "Set HF_HOME (or HF_DATASETS_CACHE) to a folder that you may write."),
        (errno.ENOSPC, MachineError, "Free some space, or set HF_HOME (or HF_DATASETS_CACHE) to a folder with room."),
        (errno.EDQUOT, MachineError, "Free some space, or set HF_HOME (or HF_DATASETS_CACHE) to a folder with room."),
    ],
)
def test_a_cache_that_cannot_be_written_names_its_variable(dataset_folder, tmp_path, monkeypatch, number, kind, remedy):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    expected = f"Cannot keep decoded images in {tmp_path}/decoded: {os.strerror(number)}. {remedy}"
    with pytest.raises(kind, match=re.escape(expected)):
        load_splits(DataArguments(dataset=str(dataset_folder)), seed=1)


def test_a_cache_below_a_file_is_an_input_error(dataset_folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "file" / "cache")
    with pytest.raises(InputError, match=re.escape("file/cache/decoded: Not a directory. Set HF_HOME (or HF_DATASETS")):
        load_splits(DataArguments(dataset=str(dataset_folder)), seed=1)


def test_images_that_are_in_the_cache_are_read_without_writing(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    data = DataArguments(dataset=str(dataset_folder))
    first = load_splits(data, seed=1)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    assert load_splits(data, seed=1).fingerprint == first.fingerprint


@pytest.fixture
def parquet_folder(tmp_path):
    (tmp_path / "parquet").mkdir()
    for split, rows in make_dataset(train=50, test=10).items():
        rows.to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    return tmp_path / "parquet"


def refuse_files_below(folder, monkeypatch, number):
    """Opening a file below `folder` for writing, and making a folder there, fail as on a disk mounted read-only."""
    makes, opens = os.mkdir, os.open

    def mkdir(path, *args, **kwargs):
        if str(path).startswith(str(folder)):
            raise OSError(number, os.strerror(number), str(path))
        return makes(path, *args, **kwargs)

    def open_(path, flags, *args, **kwargs):
        if str(path).startswith(str(folder)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, os.strerror(number), str(path))
        return opens(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", open_)


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.EROFS, InputError, "Set HF_HOME (or HF_DATASETS_CACHE) to a folder that you may write."),
        (errno.ENOSPC, MachineError, "Free some space, or set HF_HOME (or HF_DATASETS_CACHE) to a folder with room."),
    ],
)
def test_parquet_images_that_cannot_be_kept_do_not_blame_the_file(
    parquet_folder, tmp_path, monkeypatch, number, kind, remedy
):
    place = tmp_path / "cache"
    monkeypatch.setattr(cache, "cache_folder", lambda: place)
    refuse_files_below(place, monkeypatch, number)
    expected = f"Cannot keep images of parquet files in {place}/parquet: {os.strerror(number)}. {remedy}"
    with pytest.raises(kind, match=re.escape(expected)):
        load_splits(DataArguments(dataset=str(parquet_folder)), seed=1)


def test_parquet_images_that_are_in_the_cache_are_read_without_writing(parquet_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    data = DataArguments(dataset=str(parquet_folder))
    first = load_splits(data, seed=1)
    for path in (tmp_path / "cache").rglob("*"):
        path.chmod(path.stat().st_mode & 0o555)  # as for a cache that several people share
    refuse_files_below(tmp_path / "cache", monkeypatch, errno.EROFS)
    assert load_splits(data, seed=1).fingerprint == first.fingerprint


def test_a_damaged_parquet_file_is_still_named(parquet_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    (parquet_folder / "train.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"cannot be read: train\.parquet: .* Fix or remove the file\."):
        load_splits(DataArguments(dataset=str(parquet_folder)), seed=1)
