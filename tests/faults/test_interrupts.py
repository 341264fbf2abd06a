"""Ctrl-C, closed pipes and log files, with the commands as a user types them.

Each command is a process group of its own, and the whole group gets the signal, as from a terminal.
"""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"} | {
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
}  # fmt: skip
PROBE = ["--backbone", "test_byobnet", "--backbone_weights", "random"]
COMMANDS = {
    "train": [
        "train.py",
        "--dataset",
        "data",
        "--use_cpu",
        "--epochs",
        "500",
        "--patience",
        "500",
        "--batch_size",
        "40",
    ],
    "train, workers": [
        *["train.py", "--dataset", "data", "--use_cpu", "--epochs", "500", "--patience", "500", "--batch_size", "40"],
        *["--dataloader_num_workers", "2", "--output_dir", "runs/workers"],
    ],
    "probe": ["train.py", "--model", "vit", *PROBE, "--dataset", "data", "--use_cpu"],
    "eval": ["eval.py", "--model", "simple-cnn-data"],
    "compare": ["compare.py", "reports/simple-cnn-data", "reports/again"],
    "sanity_check": ["sanity_check.py", "--dataset", "data", "--epochs", "100", "--lr", "1e-9"],
    "profile_models": ["profile_models.py", "simple-cnn-data", "--rounds", "100"],
    "label_efficiency": ["label_efficiency.py", "--dataset", "data", "--shots", "2", "4", "8", *PROBE],
}
# The exit code of a command that is not interrupted, and how its last line begins.
ENDS = {
    "train": (0, "Report: "), "train, workers": (0, "Report: "), "probe": (0, "Report: "), "eval": (0, "Predict: "),
    "compare": (0, "Speed and memory: "), "sanity_check": (1, "error: cnn did not overfit "),
    "profile_models": (0, "Compare: "), "label_efficiency": (0, "Table and curves: "),
}  # fmt: skip


def start(command, folder, **values):
    script, *flags = command
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / script, *map(str, flags)],
        **settings | values, cwd=folder, env=ENVIRONMENT | {"XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip


def interrupt(process, *, count, end=None):
    """The last line of an interrupted process; its exit code is that of an interrupt, and none of its children is left.

    None if it was too late for an interrupt: with `end`, the process may end as if there had been none.
    """
    for _ in range(count):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    said, _ = process.communicate(timeout=60)
    if end and process.returncode != 130:
        check_end(process, said, end)
        return None
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert [line.startswith("Interrupted") for line in said.splitlines()].count(True) == 1, said
    assert said.splitlines()[-1].startswith("Interrupted"), said
    return said.splitlines()[-1]


def check_end(process, said, end):
    """That the process was not interrupted and has printed everything."""
    assert process.returncode == end[0], said
    assert "Interrupted" not in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(end[1]), said


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with images, a model in the hub folder and two reports."""
    from helpers.images import make_dataset

    folder = tmp_path_factory.mktemp("workplace")
    make_dataset().save_to_disk(folder / "data")
    for command in (
        ["train.py", "--dataset", "data", "--use_cpu", "--epochs", "1", "--output_dir", "runs/first"],
        ["eval.py", "--model", "simple-cnn-data"],
        ["eval.py", "--model", "simple-cnn-data", "--report_dir", "reports/again"],
    ):
        done = start(command, folder)
        said, _ = done.communicate()
        assert done.returncode == 0, said
    return folder


@pytest.mark.faults
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_at_many_moments(workplace, command, count):
    """At tenths of the time that the command takes or of its first half minute: imports, decoding, work, the end."""
    flags = ["--overwrite"] if "train.py" in COMMANDS[command] else []
    start_time = time.monotonic()
    whole = start([*COMMANDS[command], *flags], workplace)
    try:
        said, _ = whole.communicate(timeout=30)
        check_end(whole, said, ENDS[command])
    except subprocess.TimeoutExpired:
        interrupt(whole, count=1, end=ENDS[command])
    seconds = time.monotonic() - start_time
    interrupted = 0
    for tenth in range(1, 10):
        process = start([*COMMANDS[command], *flags], workplace)
        try:
            said, _ = process.communicate(timeout=seconds * tenth / 10)
            check_end(process, said, ENDS[command])
        except subprocess.TimeoutExpired:
            if interrupt(process, count=count, end=ENDS[command]):
                interrupted += 1
    assert interrupted >= 5
    assert not list(workplace.rglob(".writing-*"))
    assert not list(workplace.rglob("part-*"))


@pytest.mark.faults
def test_an_interrupted_training_says_what_is_saved_and_continues(workplace):
    flags = ["--dataset", "data", "--use_cpu", "--batch_size", "40", "--output_dir", "runs/interrupted"]
    process = start(["train.py", *flags, "--epochs", "5000", "--patience", "5000"], workplace)
    assert any(line.startswith("epoch   2/") for line in process.stdout)
    told = interrupt(process, count=1)
    assert told.startswith("Interrupted at step ")
    assert told.endswith("; all is saved in runs/interrupted. To continue, run the same command with --resume.")
    step = told.split()[3]
    assert (workplace / "runs" / "interrupted" / f"checkpoint-{step}").is_dir()
    resumed = start(["train.py", *flags, "--epochs", "5000", "--patience", "5000", "--resume"], workplace)
    assert any(line == f"Continuing from runs/interrupted/checkpoint-{step}.\n" for line in resumed.stdout)
    assert any(line.startswith("epoch ") for line in resumed.stdout)
    assert interrupt(resumed, count=3) in (
        "Interrupted. To continue from what is saved in runs/interrupted, run the same command with --resume.",
        told.replace(step, "0"),
    )


@pytest.mark.faults
def test_a_log_file_holds_lines_and_a_terminal_a_bar(workplace):
    """The number of lines: what was found and chosen, two for each decoding, epochs, seven at the end."""
    command = ["train.py", "--dataset", "data", "--use_cpu", "--batch_size", "40", "--epochs", "3"]
    with (workplace / "log.txt").open("w") as log:
        assert start([*command, "--output_dir", "runs/log"], workplace, stdout=log, stderr=log).wait() == 0
    log = (workplace / "log.txt").read_bytes()
    assert b"\r" not in log
    assert b"\x1b" not in log
    lines = log.decode().splitlines()
    assert [line[: len("epoch   1/3 ")] for line in lines if line.startswith("epoch")] == [
        "epoch   1/3 ", "epoch   2/3 ", "epoch   3/3 ",
    ]  # fmt: skip
    assert len(lines) <= 7 + 2 * 2 + 3 + 7

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    process = start([*command, "--output_dir", "runs/terminal"], workplace, stdout=follower, stderr=follower)
    os.close(follower)
    shown = read_all(leader)
    assert process.wait() == 0
    assert "\r" in shown
    assert "12/12" in shown
    assert "epoch   3/3 " in shown


def read_all(descriptor):
    blocks = []
    while True:
        try:
            blocks.append(os.read(descriptor, 4096))
        except OSError:  # the other end of a terminal was closed
            break
        if not blocks[-1]:
            break
    os.close(descriptor)
    return b"".join(blocks).decode()


@pytest.mark.faults
def test_a_training_whose_reader_is_gone_saves_and_stops(workplace):
    command = ["train.py", "--dataset", "data", "--use_cpu", "--epochs", "5000", "--patience", "5000"]
    process = start([*command, "--output_dir", "runs/pipe"], workplace, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith("epoch   1/")
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert "Traceback" not in error
    assert "BrokenPipeError" not in error
    last = error.splitlines()[-1]
    assert last.startswith("Stopped because the output was closed at step ")
    step = last.split(" of ")[0].split()[-1].replace(",", "")
    assert (workplace / "runs" / "pipe" / f"checkpoint-{step}").is_dir()
    state = json.loads((workplace / "runs" / "pipe" / f"checkpoint-{step}" / "trainer_state.json").read_text())
    assert state["log_history"][-1]["epoch"] >= 2  # with the evaluation whose line nobody read


@pytest.mark.faults
@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_of_both_outputs_that_is_gone_after_a_line(workplace, command):
    """`COMMAND 2>&1 | head -1`."""
    if command == "compare":
        pytest.skip("writes all it has to say at once")
    process = start([*COMMANDS[command], *(["--overwrite"] if "--use_cpu" in COMMANDS[command] else [])], workplace)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 141


@pytest.mark.faults
@pytest.mark.parametrize("command", ["train.py --help", "train", "eval", "compare", "sanity_check"])
def test_a_closed_stdout_is_no_error(workplace, command):
    words = COMMANDS.get(command, command.split())
    words = [*words, *(["--overwrite"] if "--use_cpu" in words else [])]
    process = start(words, workplace, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(timeout=120) == 141
    assert "Traceback" not in error
    assert "BrokenPipeError" not in error
