import os
import platform
import subprocess
import sys
import textwrap

import pytest


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
