import shutil
import subprocess
from pathlib import Path

import pytest

import hfprobe
from hfprobe.system import provenance

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def copy_package(tmp_path, monkeypatch):
    """A copy of the package at a place in a new repository, and what `git_sha` says there."""

    def copy(place, *, tracked, setup=None):
        git(tmp_path, "init")
        (tmp_path / "notes.txt").write_text("of the user")
        package = tmp_path / place / "hfprobe"
        package.mkdir(parents=True)
        shutil.copy(ROOT / "hfprobe" / "__init__.py", package)
        if setup is not None:
            (tmp_path / place / "setup.cfg").write_text(setup)
        git(tmp_path, "add", *(["."] if tracked else ["notes.txt"]))
        git(tmp_path, "commit", "-m", "first")
        monkeypatch.setattr(hfprobe, "__file__", str(package / "__init__.py"))
        return provenance.git_sha()

    return copy


OWN = (ROOT / "setup.cfg").read_text()


def test_commit_is_that_of_the_checkout_of_hfprobe(copy_package, tmp_path):
    assert copy_package(".", tracked=True, setup=OWN) == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "hfprobe" / "__init__.py").write_text("changed")
    assert provenance.git_sha() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize(
    ("place", "tracked", "setup"),
    [
        (".venv/lib/site-packages", False, None),
        (".venv/lib/site-packages", True, None),
        ("vendored", True, OWN),
        (".", True, "[metadata]\nname = thesis\n"),
        (".", False, OWN),
        (".", True, "no section"),
    ],
)
def test_commit_of_a_repository_around_an_installed_copy_is_ignored(copy_package, place, tracked, setup):
    assert copy_package(place, tracked=tracked, setup=setup) is None


def test_repository_of_a_git_hook_is_ignored(copy_package, monkeypatch):
    expected = copy_package(".", tracked=True, setup=OWN)
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    assert provenance.git_sha() == expected


def test_a_system_that_does_not_count_its_processors_has_one(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert provenance.hardware()["cores"] == 1
