import contextlib
import errno
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.results import make_result
from hfprobe.system.errors import InputError, MachineError
from hfprobe.system.files import check_writable, locked, replace_together, staging_folder
from hfprobe.tasks.evaluate.page import save_evaluation, write_report
from hfprobe.tasks.evaluate.result import METRICS_FILE, EvalResult

SCRIPTS = Path(__file__).parents[2] / "scripts"


@contextlib.contextmanager
def no_file_larger_than(size):
    """A disk that is full at a point of choice: writes fail with EFBIG, as `ulimit -f` does it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_replaced_together_and_other_files_are_kept(tmp_path):
    for name in ("first", "last", "other"):
        (tmp_path / name).write_text("old")
    with replace_together(tmp_path, last="last") as staging:
        (staging / "last").write_text("new")
        with replace_together(staging, last="first") as inner:
            (inner / "first").write_text("new")
        assert (tmp_path / "first").read_text() == "old"
    assert content(tmp_path) == {"first": b"new", "last": b"new", "other": b"old"}


def test_kill_between_two_files_leaves_an_incomplete_folder(tmp_path, monkeypatch):
    make_result(seed=0).save(tmp_path)

    replace = os.replace

    def kill_at_the_second(source, target):
        if target == tmp_path / "predictions.parquet":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("hfprobe.system.files.os.replace", kill_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make_result(seed=1).save(tmp_path)
    assert not (tmp_path / METRICS_FILE).exists()
    monkeypatch.undo()
    make_result(seed=1).save(tmp_path)
    assert EvalResult.load(tmp_path).metrics == make_result(seed=1).metrics


@pytest.mark.parametrize("failure", [OSError(28, "full"), OSError(122, "quota"), OSError(27, "large")])
def test_full_disk_keeps_earlier_files_and_is_a_one_line_error(tmp_path, failure):
    (tmp_path / "last").write_text("old")
    expected = f"The results could not be written to '{tmp_path}': {os.strerror(failure.errno)}. Its earlier files are "

    def write():
        with replace_together(tmp_path, last="last") as staging:
            (staging / "last").write_text("new")
            raise failure

    with pytest.raises(MachineError, match=re.escape(expected)):
        write()
    assert content(tmp_path) == {"last": b"old"}


def write(folder, seed):
    save_evaluation(make_result(seed=seed), folder)


@pytest.mark.slow
def test_disk_that_is_full_at_any_point_keeps_the_old_report(tmp_path):
    write(tmp_path, seed=0)
    old = content(tmp_path)
    largest = max(len(data) for data in old.values())
    for size in sorted({0, largest // 2, *(len(data) - 1 for data in old.values() if len(data) < largest)}):
        with no_file_larger_than(size), pytest.raises(MachineError, match="Its earlier files are intact"):
            write(tmp_path, seed=1)
        assert content(tmp_path) == old
        with no_file_larger_than(0), pytest.raises(MachineError, match="Its earlier files are intact"):
            write_report(tmp_path)
        assert content(tmp_path) == old
    write(tmp_path, seed=1)
    assert content(tmp_path) != old
    assert content(tmp_path).keys() == old.keys()


@pytest.mark.parametrize("script", ["eval.py", "compare.py"])
def test_full_disk_is_a_one_line_error_with_exit_code_3(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b")):
        write(tmp_path / name, seed=seed)
    before = content(tmp_path / "a")
    flags = {"eval.py": ["--report_only", "--report_dir", "a"], "compare.py": ["a", "b", "--report_dir", "out"]}
    monkeypatch.setattr(sys, "argv", [script, *flags[script]])
    # Nothing is written before the pages: room for a temporary folder is not asked of a file.
    with no_file_larger_than(10), pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    folder = "a" if script == "eval.py" else "out"
    assert stopped.value.code == 3
    assert capsys.readouterr() == (
        "",
        f"error: The results could not be written to '{folder}': File too large. Its earlier files are intact. "
        "Free some space, and run again.\n",
    )
    assert content(tmp_path / "a") == before
    assert not list(Path("out").glob("*"))


def test_files_of_a_killed_process_are_removed_and_those_of_a_running_one_are_kept(tmp_path):
    program = f"""
import os, signal, sys
from pathlib import Path
from hfprobe.system.files import staging_folder
with staging_folder(Path({str(tmp_path)!r}), prefix="part-") as folder:
    (folder / "half").write_text("written")
    print(folder.name, flush=True)
    sys.stdin.readline()
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    _, living = (process.stdout.readline().strip() for process in processes)
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    with staging_folder(tmp_path, prefix="part-") as mine:
        assert {path.name for path in tmp_path.iterdir()} == {living, mine.name}
    processes[1].communicate("")
    assert processes[1].returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_locks_is_written_to_and_its_files_are_kept(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / "part-of-another").mkdir()
    monkeypatch.setattr("fcntl.flock", refuse)
    with staging_folder(tmp_path, prefix="part-") as mine:
        assert {path.name for path in tmp_path.iterdir()} == {"part-of-another", mine.name}
    assert [path.name for path in tmp_path.iterdir()] == ["part-of-another"]


def test_a_lock_ends_with_its_process_although_a_child_lives_on(tmp_path):
    script = f"""
import os, time
from pathlib import Path
from hfprobe.system.files import locked
with locked(Path({str(tmp_path / "lock")!r})):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        try:
            with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
                pass  # the child let go of its copy, not of the lock
            parent.kill()
            parent.wait()
            with locked(tmp_path / "lock", wait=False) as held:
                assert held
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_writable_folder_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "new" / "hub", flag="--hub_dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    expected = f"--hub_dir '{tmp_path}/file/hub' cannot be written: '{tmp_path}/file' is a file. Pass a folder that"
    with pytest.raises(InputError, match=re.escape(expected)):
        check_writable(tmp_path / "file" / "hub", flag="--hub_dir")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("loop", "'{}/loop' is a link to itself or to a path that does not exist"),
        ("loop/run", "'{}/loop' is a link to itself or to a path that does not exist"),
        ("nowhere", "'{}/nowhere' is a link to itself or to a path that does not exist"),
        ("nowhere/run", "'{}/nowhere' is a link to itself or to a path that does not exist"),
        ("a" * 256, "File name too long"),
        ("new/" + "a" * 256, "File name too long"),
        ("/".join(["a" * 200] * 25), "File name too long"),
        ("a\0b", "embedded null byte" if sys.version_info < (3, 13) else "mkdir: embedded null character in path"),
    ],
)
def test_a_folder_that_can_never_be_made(tmp_path, place, reason):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=re.escape(f"cannot be written: {reason.format(tmp_path)}. Pass a ")
    ) as refused:
        check_writable(tmp_path / place, flag="--output_dir")
    assert len(str(refused.value)) < 500
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("place", [".", "new", "new/a/b", "link", "link/a", "[v1]/*"])
def test_a_folder_that_can_be_made_is_not_made(tmp_path, place):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    check_writable(tmp_path / place, flag="--output_dir")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "there"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_folder_on_a_full_disk(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    expected = f"--output_dir '{tmp_path}/a' cannot be written: {os.strerror(number)}. Free some space, or pass another"
    with pytest.raises(MachineError, match=re.escape(expected)):
        check_writable(tmp_path / "a", flag="--output_dir")


def test_a_path_with_no_room_for_what_is_written_into_it(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 4020:
        folder = folder / ("a" * min(200, 4029 - len(str(folder))))
    with pytest.raises(InputError, match=re.escape("cannot be written: File name too long. Pass a folder that")):
        check_writable(folder, flag="--output_dir")
    check_writable(Path(str(folder)[:-200]), flag="--output_dir")


def test_a_trial_stays_inside_its_folder(tmp_path):
    (tmp_path / "work").mkdir()
    check_writable(tmp_path / "work" / "new" / ".." / ".." / "out" / "a", flag="--output_dir")
    assert [path.name for path in tmp_path.rglob("*")] == ["work"]


def test_a_folder_without_write_permission():
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that nobody may write")
    with pytest.raises(InputError, match=re.escape("--output_dir '/proc/x' cannot be written: ")):
        check_writable("/proc/x", flag="--output_dir")


def test_a_working_directory_that_was_removed_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match=re.escape("--hub_dir 'hub' cannot be written: No such file or directory.")):
        check_writable("hub", flag="--hub_dir")


def test_a_path_of_very_many_folders_is_one_line(tmp_path):
    with pytest.raises(InputError, match=re.escape("cannot be written: ")):
        check_writable(tmp_path / "/".join("a" * 1900), flag="--output_dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match=re.escape(f"--output_dir '{tmp_path}' cannot be written: Permission denied.")):
        check_writable(tmp_path, flag="--output_dir")
