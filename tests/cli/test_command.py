import logging
import threading

import pytest
import torch

from hfprobe.cli.command import run_command
from hfprobe.system.errors import CheckFailedError, InputError, MachineError


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
