import os
import platform
import subprocess
import sys
import textwrap

import pytest
import torch

from hfprobe.system.machine import use_every_core


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"ACCELERATE_USE_CPU": "False", "OMP_NUM_THREADS": "1"}, "all"),
        ({"ACCELERATE_USE_CPU": "False", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}, "as before"),
        ({"OMP_NUM_THREADS": "1"}, "as before"),
    ],
)
def test_a_single_launched_process_uses_every_core(environment, threads, monkeypatch):
    for name in ("ACCELERATE_USE_CPU", "OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before, expected = torch.get_num_threads(), len(os.sched_getaffinity(0))
    torch.set_num_threads(expected + 1)
    try:
        use_every_core()
        assert torch.get_num_threads() == (expected if threads == "all" else expected + 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_memory_that_a_step_gives_back_is_not_fetched_again_page_by_page():
    program = """
        import resource, torch
        from hfprobe.system.machine import keep_freed_memory

        def count_page_faults():
            for _ in range(20):  # until freed pieces are large enough to be used again
                torch.ones(16 << 20)  # 64 MB
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(5):
                torch.ones(16 << 20)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        print(count_page_faults())
        keep_freed_memory()
        print(count_page_faults())
        """
    printed = subprocess.check_output([sys.executable, "-c", textwrap.dedent(program)], text=True)
    before, after = map(int, printed.split())
    assert after < 100 < before
