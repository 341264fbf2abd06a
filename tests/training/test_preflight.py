from collections import namedtuple
from pathlib import Path

from hfprobe.training import preflight
from hfprobe.training.preflight import find_shortages


def test_a_disk_too_small_for_the_checkpoints(tmp_path, monkeypatch):
    def shortages(free, **values):
        usage = namedtuple("usage", "free")(free)
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
        given = {"parameters": 1_000_000, "output_dir": Path("no/such"), "kept": 2, "epochs": 9}
        given |= {"memory": 0, "memory_remedy": ""}
        return find_shortages(**given | values)

    assert shortages(36_000_000) == []
    assert shortages(35_999_999) == [
        "Checkpoints need 36 MB in 'no/such' (3 of 12 MB), and 36 MB are free. Free some, or pass another --output_dir "
        "or a smaller --save_total_limit."
    ]
    assert "need 120 MB in 'no/such' (10 of 12 MB)" in shortages(0, kept=None)[0]
    for step in (1, 2):  # of the run that is resumed
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert "(1 of 12 MB)" in shortages(0, output_dir=tmp_path)[0]


def test_too_little_memory_for_the_features(tmp_path, monkeypatch):
    given = {"parameters": 1, "output_dir": tmp_path, "kept": 2, "epochs": 1, "memory_remedy": "fewer --views"}
    assert 0 < preflight.available_memory() < 1e15
    monkeypatch.setattr(preflight, "available_memory", lambda: 1_000_000_000)
    assert find_shortages(**given, memory=1_000_000_000) == []
    (found,) = find_shortages(**given, memory=2_000_000_000)
    assert found == ("Fitting the model needs 2.0 GB of memory, and 1.0 GB are free. Free some, or pass fewer --views.")
    monkeypatch.setattr(preflight, "available_memory", lambda: None)
    assert find_shortages(**given, memory=2_000_000_000) == []
