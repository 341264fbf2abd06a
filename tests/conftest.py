import gc
import os
import runpy
import signal
import sys
from importlib import import_module
from pathlib import Path

# Before any test imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes test at once: more threads would wait for each other

import pytest
from hypothesis import settings

from hfprobe.system.machine import quiet_libraries

pytest.register_assert_rewrite("helpers")
settings.register_profile("hfprobe", deadline=None)  # no test depends on a measured time
settings.load_profile("hfprobe")
os.environ["TQDM_DISABLE"] = "1"
SCRIPTS = Path(__file__).parent.parent / "scripts"


def pytest_collection():
    """Import what most tests use, in the processes that run tests: with -n, the first process runs none."""
    quiet_libraries()
    import_module("hfprobe.training.assembly")
    import_module("hfprobe.training.publish")
    gc.freeze()  # Trainer.train collects garbage: skip what was imported, which saves a second each time


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """A save_to_disk folder of 200 + 60 small images in five classes."""
    from helpers.images import make_dataset  # after register_assert_rewrite

    folder = tmp_path_factory.mktemp("data") / "small"
    make_dataset().save_to_disk(folder)
    return folder


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with small images and backbone weights, nothing of it in the caches, and no registry mirror."""
    from helpers.hub_content import fill
    from helpers.hub_server import HubServer, use_server
    from hfprobe.hub import client

    home = tmp_path / "home"
    monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: home / "hfprobe")
    mirror = "hfprobe.data.sources.cifar10_mirror.download_package"
    monkeypatch.setattr(mirror, lambda *_: pytest.fail("the registry mirror was asked"))
    client._warn_of_token.cache_clear()
    with HubServer() as server, use_server(server, monkeypatch, home):
        fill(server)
        yield server


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Decoded images go to a cache of this test session, not to the user's."""
    cache = tmp_path_factory.getbasetemp() / "hfprobe-cache"
    monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: cache)


@pytest.fixture(scope="session", autouse=True)
def no_bf16_units():
    """Runs of this process choose float32 by themselves, whatever the machine that tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfprobe.system.precision.has_native_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_penalties():
    """Heads are solved with four penalties instead of 13, a second each time; `all_penalties` is for tests of the
    search."""
    import numpy as np

    from hfprobe.models.linear_probe import head

    whole = head.PENALTIES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "PENALTIES", np.logspace(0, -3, 4))
        yield whole


@pytest.fixture
def all_penalties(few_penalties, monkeypatch):
    monkeypatch.setattr("hfprobe.models.linear_probe.head.PENALTIES", few_penalties)


@pytest.fixture(scope="module")
def narrow_network():
    """SimpleCNN with a quarter of its channels, for tests that need any network: its files are a tenth as large."""
    from hfprobe.models.simple_cnn.modeling import SimpleCNNConfig

    constructor = SimpleCNNConfig.__init__
    whole = constructor.__defaults__
    size, _, _, dropout = whole
    constructor.__defaults__ = (size, (16, 32, 64), 64, dropout)
    yield whole
    constructor.__defaults__ = whole


@pytest.fixture(autouse=True)
def own_signals():
    """A script that runs in this process takes Ctrl-C no longer than its test."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Run a script in this process; its one line on stderr. Nothing may be left in the working folder."""

    def call(script, *arguments, code=2):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        assert stopped.value.code == code
        assert sorted(tmp_path.rglob("*")) == before
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        assert "Traceback" not in "".join(lines)
        return lines[-1].removeprefix("error: ")

    return call


@pytest.fixture
def succeeds(monkeypatch, capsys, tmp_path):
    """Run a script in this process, in a folder of its own; what it prints."""

    def call(script, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return call


def pytest_report_collectionfinish(items):
    """How many wrong or unusual inputs the selected tests try."""
    tests = [item for item in items if item.get_closest_marker("hostile")]
    drawn = [item.obj for item in tests if getattr(item.obj, "is_hypothesis_test", False)]
    examples = sum(test._hypothesis_internal_use_settings.max_examples for test in drawn)
    return f"hostile inputs: {len(tests) - len(drawn)} by table, {examples} by hypothesis" if tests else None
