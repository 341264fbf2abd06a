"""Python code in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import textwrap


def start_python(code):
    """Run code in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True)


def start_ranks(count, script, *arguments, cwd, **values):
    """Start the processes of a run without a launcher, which would end the others when one of them ends."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = []
    for rank in range(count):
        place = {name: str(value) for name, value in (meeting | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        environment = (
            os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | values | (place if count > 1 else {})
        )
        command = [sys.executable, script, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=cwd, env=environment, **pipes))
    return processes


def end_ranks(processes):
    """Exit code, standard output and standard error of each process."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def in_a_process_without_hfprobe(code, tmp_path):
    """Run code where `import hfprobe` fails; its standard output."""
    block = "import sys; sys.modules['hfprobe'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def growth_and_imports(folder, side, batch_size):
    """`_resident_growth` in a process of its own, which also writes what was imported while memory was measured.

    `imported.json` beside the folder has the modules of each model folder there, of which this one is the first.
    """
    from hfprobe.tasks.profile import timing

    status, imported, growth = timing._status, {}, {}
    others = sorted(path.parent for path in folder.parent.glob("*/config.json") if path.parent != folder)
    for place in (folder, *others):
        modules = []
        timing._status = lambda field, modules=modules: modules.append(set(sys.modules)) or status(field)
        growth[place] = timing._resident_growth(place, side, batch_size)
        imported[place.name] = sorted(modules[1] - modules[0])
    (folder.parent / "imported.json").write_text(json.dumps(imported))
    return growth[folder]
