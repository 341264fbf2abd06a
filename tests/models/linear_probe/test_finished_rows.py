import zlib

import numpy as np
import pytest

from hfprobe.models.linear_probe.finished_rows import FinishedRows, WrittenRows, remove_notes


def finished(*rows, seconds=0.0):
    return FinishedRows(np.isin(np.arange(20), rows), seconds)


def test_finished_rows_are_those_of_all_notes(tmp_path):
    part = tmp_path / "f00.part"
    (tmp_path / "f00000.rows-0").write_text("a note about another file")
    finished(0, 1, 19, seconds=3).write(part, rank=0)
    finished(0, 10, seconds=5).write(part, rank=7)
    found = FinishedRows.read(part, count=20)
    assert np.flatnonzero(found.rows).tolist() == [0, 1, 10, 19]
    assert found.seconds == 5
    remove_notes(part)
    assert not FinishedRows.read(part, count=20).rows.any()
    assert [path.name for path in tmp_path.iterdir()] == ["f00000.rows-0"]


@pytest.mark.parametrize("damaged", ["", "{}", "[]", '{"rows": "f', '{"rows": "xy", "seconds": 1}', '{"rows": 3}'])
def test_a_damaged_note_counts_for_no_rows(tmp_path, damaged):
    part = tmp_path / "f00.part"
    finished(2, seconds=1).write(part, rank=1)
    (tmp_path / "f00.rows-0").write_text(damaged)
    assert np.flatnonzero(FinishedRows.read(part, count=20).rows).tolist() == [2]


def test_rows_that_are_not_in_the_file_are_noticed(tmp_path):
    features = np.random.default_rng(0).random((20, 3), dtype=np.float32)
    np.save(tmp_path / "features.npy", features)
    positions = np.array([3, 4, 9])
    written = WrittenRows(positions, zlib.crc32(features[positions].data), 1.0)
    assert written.are_in(tmp_path / "features.npy")
    features[9, 2] += 1
    np.save(tmp_path / "features.npy", features)
    assert not written.are_in(tmp_path / "features.npy")
