"""Interrupts and closed outputs. The processes here import neither torch nor transformers, so each takes a moment."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from _multiprocessing import sem_unlink

import pytest

from hfprobe.system import process

INTERRUPTED = "Interrupted. To start again, run the same command.\n"
SCRIPT = """
import hfprobe.cli.interruptible
import os, signal, sys, time
from hfprobe.cli.command import run_command
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
"""


def start(program, **values):
    """A script of the package's kind, with `program` as the rest of it."""
    environment = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(program)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment} | values,
    )


def finish(program, **values):
    """Exit code, stdout and stderr."""
    process = start(program, **values)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "program",
    [
        "interrupt()",  # as during the imports at the top
        "sys.path.insert(0, '.'); import interrupted_import",
        """
        def main():
            try:
                interrupt()
            except BaseException:  # a library that swallows everything
                pass
            time.sleep(60)
        run_command(main)
        """,
        """
        class Closing:
            def __del__(self): interrupt()
        def main():
            Closing()
            time.sleep(60)
        run_command(main)
        """,
        "import atexit; atexit.register(interrupt); run_command(lambda: None)",
        """
        import threading
        threading.Thread(target=interrupt).start()
        run_command(lambda: time.sleep(60))
        """,
        """
        from concurrent.futures import ThreadPoolExecutor
        def main():
            with ThreadPoolExecutor() as pool:
                pool.submit(interrupt)
                pool.submit(time.sleep, 60).result()
        run_command(main)
        """,
    ],
    ids=["import", "import that fails otherwise", "swallowed", "__del__", "atexit", "thread", "pool"],
)
def test_interrupt_at_any_point_prints_one_line_and_exits_with_130(program, tmp_path):
    (tmp_path / "interrupted_import.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException as error:\n    raise ImportError('initialization failed') from error\n"
    )
    assert finish(program, cwd=tmp_path) == (130, "", INTERRUPTED)


def test_three_interrupts_in_a_row_print_one_line():
    for pause in (0, 0.001, 0.05):
        process = start("run_command(lambda: (print('ready', flush=True), time.sleep(60)))")
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        assert (process.wait(timeout=60), process.stderr.read()) == (130, INTERRUPTED)


def test_output_before_an_interrupt_is_not_lost():
    assert finish("run_command(lambda: (print('said'), interrupt()))") == (130, "said\n", INTERRUPTED)


def test_interrupt_reports_what_is_saved_and_removes_incomplete_files(tmp_path):
    program = f"""
    from pathlib import Path
    from hfprobe.system import process
    from hfprobe.system.files import staging_folder
    process.advice = "Points are kept in 'x'. To continue, run the same command."
    with staging_folder(Path({str(tmp_path)!r}), prefix="part-") as folder:
        (folder / "half").write_text("written")
        interrupt()
    """
    expected = "Interrupted. Points are kept in 'x'. To continue, run the same command.\n"
    assert finish(program) == (130, "", expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_interrupt_ends_child_processes_without_output(method, tmp_path):
    (tmp_path / "work.py").write_text("import time\ndef sleep():\n    print('child', flush=True)\n    time.sleep(60)\n")
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT
        + textwrap.dedent(f"""
        import multiprocessing
        import work
        def main():
            child = multiprocessing.get_context({method!r}).Process(target=work.sleep)
            child.start()
            child.join()
        if __name__ == "__main__":
            run_command(main)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "child\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    out, err = process.communicate(timeout=60)  # until the last child has closed its outputs
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


def test_interrupt_prints_no_warning_about_semaphores_and_removes_them():
    """A pool of spawned processes has five semaphores; Python's resource tracker, a process, removes what is left."""
    program = """
    import multiprocessing
    lock = multiprocessing.get_context("spawn").Lock()
    print(lock._semlock.name, flush=True)
    interrupt()
    """
    code, name, error = finish(program)
    assert (code, error) == (130, INTERRUPTED)
    with pytest.raises(FileNotFoundError):
        sem_unlink(name.strip())


def test_message_of_an_interrupt_starts_on_a_new_line_after_a_progress_bar():
    program = """
    from tqdm import tqdm
    with tqdm(total=10) as bar:
        interrupt()
    """
    code, shown = on_terminal(program)
    assert code == 130
    assert "  0%" in shown
    assert shown.endswith("\n" + INTERRUPTED)


def test_error_message_starts_on_a_new_line_after_a_progress_bar():
    program = """
    from tqdm import tqdm
    from hfprobe.system.errors import InputError
    def main():
        global bar
        bar = tqdm(total=10)
        raise InputError("wrong")
    run_command(main)
    """
    code, shown = on_terminal(program)
    assert (code, shown.rstrip("\n").split("\n")[-1]) == (2, "error: wrong")


def on_terminal(program):
    """Exit code, and what a terminal that is stdout and stderr gets, its line ends as \\n."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = start(program, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 4096)
        except OSError:  # the other end was closed
            break
        if not block:
            break
        shown += block
    os.close(leader)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


CLOSED = """
    import argparse
    from hfprobe.system.errors import InputError
    def printing():
        for _ in range(100_000):
            print("line")
    def printing_little():
        print("line")
    def helping():
        argparse.ArgumentParser().parse_args(["--help"])
    def telling():
        import logging
        logging.basicConfig()
        logging.warning("line")
    def failing():
        raise InputError("wrong")
    """


@pytest.mark.parametrize("main", ["printing", "printing_little", "helping"])
def test_closed_pipe_ends_the_command_without_a_message(main):
    read, write = os.pipe()
    os.close(read)
    assert finish(f"{CLOSED}\n    run_command({main})", stdout=write) == (141, None, "")
    os.close(write)


def test_errors_keep_their_exit_code_if_stderr_is_closed():
    read, write = os.pipe()
    os.close(read)
    assert finish(f"{CLOSED}\n    run_command(failing)", stderr=write) == (2, "", None)
    assert finish(f"{CLOSED}\n    run_command(telling)", stderr=write) == (141, "", None)
    os.close(write)


def test_outputs_closed_before_the_start_do_not_disturb_a_command(tmp_path):
    program = SCRIPT + textwrap.dedent("""
        stream = open("file", "w")
        assert stream.fileno() > 2
        os.write(1, b"of a C library")
        print("said")
        print("said", file=sys.stderr)
        run_command(lambda: None)
        """)
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, program], cwd=tmp_path, check=False
        )
        assert done.returncode == 0
        assert (tmp_path / "file").read_text() == ""


def test_output_to_a_full_disk_is_a_one_line_error_with_exit_code_3():
    expected = "error: No space left on device. Free some space, and run again.\n"
    with open("/dev/full", "w") as full:
        assert finish("run_command(lambda: print('line'))", stdout=full) == (3, None, expected)
        assert finish("run_command(lambda: print('line'))", stdout=full, stderr=full)[0] == 3


def test_commands_in_messages_start_as_the_user_started_this_one(tmp_path, monkeypatch):
    checkout = tmp_path / "my code"
    for file in ("hfprobe/system/process.py", "hfprobe/__main__.py", "scripts/profile_models.py", "scripts/train.py"):
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).touch()
    (tmp_path / "train.py").touch()  # the user's own
    (tmp_path / "bin").symlink_to(checkout / "scripts")
    monkeypatch.setattr(process, "__file__", str(checkout / "hfprobe" / "system" / "process.py"))
    monkeypatch.chdir(checkout)
    for running, expected in (
        (f"{checkout}/scripts/train.py", [f"python '{checkout}/scripts/train.py'", "hfprobe eval"]),
        ("scripts/profile_models.py", ["python scripts/train.py", "hfprobe eval"]),
        (f"{tmp_path}/bin/train.py", [f"python {tmp_path}/bin/train.py", "hfprobe eval"]),
        (f"{checkout}/hfprobe/__main__.py", ["python -m hfprobe train", "python -m hfprobe eval"]),
        (f"{tmp_path}/env/bin/hfprobe", ["hfprobe train", "hfprobe eval"]),
        (f"{tmp_path}/train.py", ["hfprobe train", "hfprobe eval"]),
        ("-c", ["hfprobe train", "hfprobe eval"]),
        ("", ["hfprobe train", "hfprobe eval"]),
    ):
        monkeypatch.setattr(sys, "argv", [running])
        assert [process.command(name) for name in ("train", "eval")] == expected
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert process.command("profile") == "python scripts/profile_models.py"
    (checkout / "scripts" / "label_efficiency.py").touch()
    assert process.command("label-efficiency") == "python scripts/label_efficiency.py"
