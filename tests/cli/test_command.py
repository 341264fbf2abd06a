import errno
import logging
import os
import platform
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

from hfprobe.cli.command import run_command
from hfprobe.cli.parser import Parser
from hfprobe.system.errors import CheckFailedError, InputError, MachineError, find_shortage
from hfprobe.system.files import require_writable
from hfprobe.system.process import script


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (CheckFailedError, 1), (MachineError, 3)])
def test_errors_are_one_line_and_an_exit_code(capsys, error, code):
    def main():
        raise error("first\n  second")

    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code == code
    assert capsys.readouterr().err == "error: first second\n"


def test_log_lines_are_shown_from_the_start(monkeypatch):
    """`--backbone auto` says what it took while the command line is read."""
    logger = logging.getLogger("hfprobe")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    found = []
    with pytest.raises(SystemExit):
        run_command(lambda: found.append(logger.getEffectiveLevel()))
    assert found == [logging.INFO]


@pytest.mark.parametrize("error", [InputError("wrong"), MemoryError()])
def test_debugging_shows_the_traceback_before_the_line(capsys, monkeypatch, error):
    def main():
        raise error

    monkeypatch.setenv("HFPROBE_DEBUG", "1")
    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code == (2 if isinstance(error, InputError) else 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == (
        "error: wrong"
        if isinstance(error, InputError)
        else "error: Out of memory. Pass a smaller batch size, or free memory."
    )


@pytest.mark.parametrize("bug", [ZeroDivisionError("x"), RuntimeError("x"), PermissionError(13, "x")])
def test_a_bug_keeps_its_traceback(bug):
    def main():
        raise bug

    with pytest.raises(type(bug)):
        run_command(main)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left", "runs/x"), "No space left: 'runs/x'. Free some space, and run again."),
        (MemoryError(), "Out of memory. Pass a smaller batch size, or free memory."),
        (torch.OutOfMemoryError("CUDA out of memory."), "Out of memory. Pass a smaller batch size, or free memory."),
    ],
)
def test_a_machine_that_gives_out_is_one_line_in_every_thread(capsys, error, line):
    def main():
        raise error

    def in_a_thread_too():
        thread = threading.Thread(target=main)
        thread.start()
        thread.join()
        main()

    with pytest.raises(SystemExit) as stopped:
        run_command(in_a_thread_too)
    assert stopped.value.code == 3
    assert capsys.readouterr().err == f"error: {line}\n"


def test_torchs_words_for_too_little_memory_are_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    assert find_shortage(error.value) == "Out of memory. Pass a smaller batch size, or free memory."


def test_only_an_error_of_the_system_tells_of_a_full_disk():
    error = ValueError("not from the system")
    error.errno = errno.ENOSPC
    assert find_shortage(error) is None
    assert find_shortage(OSError(errno.ENOSPC, "No space")) == "No space. Free some space, and run again."


def test_unknown_flag_offers_the_nearest():
    parser = Parser(prog="scripts/x.py")
    parser.add_argument("--split")
    expected = "Unknown argument '--spilt'. Did you mean --split? All flags: python scripts/x.py --help"
    with pytest.raises(InputError, match=re.escape(expected)):
        parser.parse_args(["--spilt=test"])


def test_a_writable_folder_is_left_as_it_was(tmp_path):
    require_writable(tmp_path / "new" / "hub", flag="--hub_dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    expected = f"--hub_dir '{tmp_path}/file/hub' cannot be written: '{tmp_path}/file' is a file. Pass a folder that"
    with pytest.raises(InputError, match=re.escape(expected)):
        require_writable(tmp_path / "file" / "hub", flag="--hub_dir")


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
        ("a\0b", "embedded null byte"),
    ],
)
def test_a_folder_that_can_never_be_made(tmp_path, place, reason):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=re.escape(f"cannot be written: {reason.format(tmp_path)}. Pass a ")
    ) as refused:
        require_writable(tmp_path / place, flag="--output_dir")
    assert len(str(refused.value)) < 500
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("place", [".", "new", "new/a/b", "link", "link/a", "[v1]/*"])
def test_a_folder_that_can_be_made_is_not_made(tmp_path, place):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    require_writable(tmp_path / place, flag="--output_dir")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "there"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_folder_on_a_full_disk(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    expected = f"--output_dir '{tmp_path}/a' cannot be written: {os.strerror(number)}. Free some space, or pass another"
    with pytest.raises(MachineError, match=re.escape(expected)):
        require_writable(tmp_path / "a", flag="--output_dir")


def test_a_path_with_no_room_for_what_is_written_into_it(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 4020:
        folder = folder / ("a" * min(200, 4029 - len(str(folder))))
    with pytest.raises(InputError, match=re.escape("cannot be written: File name too long. Pass a folder that")):
        require_writable(folder, flag="--output_dir")
    require_writable(Path(str(folder)[:-200]), flag="--output_dir")


def test_a_trial_stays_inside_its_folder(tmp_path):
    (tmp_path / "work").mkdir()
    require_writable(tmp_path / "work" / "new" / ".." / ".." / "out" / "a", flag="--output_dir")
    assert [path.name for path in tmp_path.rglob("*")] == ["work"]


def test_a_folder_without_write_permission():
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that nobody may write")
    with pytest.raises(InputError, match=re.escape("--output_dir '/proc/x' cannot be written: ")):
        require_writable("/proc/x", flag="--output_dir")


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"ACCELERATE_USE_CPU": "False", "OMP_NUM_THREADS": "1"}, "all"),
        ({"ACCELERATE_USE_CPU": "False", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}, "1"),
        ({"OMP_NUM_THREADS": "1"}, "1"),
    ],
)
def test_a_single_launched_process_uses_every_core(environment, threads):
    code = "import torch; from hfprobe.system.machine import *; use_every_core(); print(torch.get_num_threads())"
    clean = {key: value for key, value in os.environ.items() if key != "WORLD_SIZE"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | environment
    )
    assert done.stdout.strip() == (str(len(os.sched_getaffinity(0))) if threads == "all" else threads)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_memory_that_a_step_gives_back_is_not_fetched_again_page_by_page():
    program = """
        import resource, sys, torch
        from hfprobe.system.machine import keep_freed_memory
        if sys.argv[1] == "keep":
            keep_freed_memory()
        for _ in range(20):  # until freed pieces are large enough to be used again
            torch.ones(16 << 20)  # 64 MB
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.ones(16 << 20)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    faults = [int(subprocess.check_output([*command, how])) for how in ("default", "keep")]
    assert faults[1] < 100 < faults[0]


def test_a_working_directory_that_was_removed_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match=re.escape("--hub_dir 'hub' cannot be written: No such file or directory.")):
        require_writable("hub", flag="--hub_dir")


def test_a_path_of_very_many_folders_is_one_line(tmp_path):
    with pytest.raises(InputError, match=re.escape("cannot be written: ")):
        require_writable(tmp_path / "/".join("a" * 1900), flag="--output_dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match=re.escape(f"--output_dir '{tmp_path}' cannot be written: Permission denied.")):
        require_writable(tmp_path, flag="--output_dir")


def test_a_script_that_lies_in_a_folder_with_spaces_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my code" / "train.py")])
    (tmp_path / "my code").mkdir()
    (tmp_path / "my code" / "eval.py").touch()
    assert script("eval") == f"'{tmp_path}/my code/eval.py'"
    assert script("compare") == "scripts/compare.py"
