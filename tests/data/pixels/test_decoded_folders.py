"""Decoded images of several processes are those of one."""

import errno
import os

import numpy as np
import pytest

from helpers.image_folders import load, write_images, write_noise
from helpers.image_kinds import KINDS, encode, grey, write_folder, write_parquet
from helpers.ranks import run_ranks
from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels import decoded_folders, decoded_rows
from hfprobe.data.pixels.image_files import read_image
from hfprobe.data.splits.images import load_images
from hfprobe.models.linear_probe.modeling import LinearProbeImageProcessor
from hfprobe.system import ranks
from hfprobe.system.errors import InputError, MachineError


def mixed_photos():
    """Small photos, then larger ones, and files that cannot be read or have a note."""
    contents = {f"{number:02}": encode(grey(30, 30), "PNG") for number in range(8)}
    contents |= {f"{number:02}": encode(grey(50 + number, 60), "PNG") for number in range(8, 14)}
    contents |= {"03": b"not an image", "11": b"", "12": KINDS["12 bits in a 16-bit PNG"](40, 40)[0]}
    return contents


@pytest.mark.parametrize("processes", [2, 21])
@pytest.mark.parametrize("photos", ["fitted", "unchanged", "mixed", "mixed parquet"])
def test_decoded_images_do_not_depend_on_the_number_of_processes(photos, processes, tmp_path, monkeypatch):
    if "mixed" in photos:
        folder = (write_parquet if "parquet" in photos else write_folder)(tmp_path / "photos", mixed_photos())
    else:
        sides = [(50 + n, 90) for n in range(20)] if photos == "fitted" else [(30, 30)] * 20
        folder = write_noise(tmp_path / "photos", sides=sides)
    processor = LinearProbeImageProcessor(size={"height": 40, "width": 40}, crop_size={"height": 40, "width": 40})
    images = load_images(DataArguments(dataset=str(folder), skip_unreadable=True), seed=0)
    reads = []
    monkeypatch.setattr(decoded_rows, "read_image", lambda *args, **how: reads.append(1) or read_image(*args, **how))

    def decode(place, decode):
        reads.clear()
        monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / place)
        splits = decode()
        kept = {path.relative_to(tmp_path / place): path for path in (tmp_path / place).rglob("*") if path.is_file()}
        return splits, {path: file.read_bytes() for path, file in kept.items()}, len(reads)

    def work(rank=0):
        return images.decode("train", "test", processor=processor)

    alone, expected, count = decode("alone", work)
    several, found, total = decode("several", lambda: run_ranks(processes, work))
    assert found == expected
    assert total == count
    for splits in several:
        assert splits.fingerprint == alone.fingerprint
        assert splits.summary == alone.summary
        np.testing.assert_array_equal(splits.train.images, alone.train.images)


def test_headers_are_checked_by_all_processes_and_the_first_images_are_named_in_order(tmp_path):
    photos = write_images(tmp_path / "photos", count=25)
    for name in ("cat/003.png", "dog/007.png", "dog/011.png"):
        (photos / name).write_bytes(b"not an image")
    with pytest.raises(InputError) as alone:
        load(photos)
    found = run_ranks(3, lambda rank: load(photos))
    assert [str(error) for error in found] == 3 * [str(alone.value)]


def test_an_error_in_one_process_leaves_nothing_of_the_others(tmp_path, monkeypatch):
    photos = write_noise(tmp_path / "photos", sides=[(30, 30)] * 20)
    images = load_images(DataArguments(dataset=str(photos)), seed=0)
    processor = LinearProbeImageProcessor(size={"height": 40, "width": 40}, crop_size={"height": 40, "width": 40})
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    create = decoded_folders.create_array

    def full(file, **how):
        if ranks.rank_and_count()[0] == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(file, **how)

    with monkeypatch.context() as patch:
        patch.setattr(decoded_folders, "create_array", full)
        found = run_ranks(2, lambda rank: images.decode("train", processor=processor))
    assert [type(error) for error in found] == [MachineError, MachineError]
    assert "Cannot keep decoded images in" in str(found[0])
    assert not list((tmp_path / "cache" / "decoded").iterdir())
