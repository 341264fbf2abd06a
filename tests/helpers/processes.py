"""Python code in a process of its own."""

import os
import subprocess
import sys
import textwrap


def start_python(code):
    """Run code in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True)


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
