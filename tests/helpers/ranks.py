"""The processes of a run as threads of one process, which takes seconds less than to start them."""

import pickle
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from hfprobe.system import ranks
from hfprobe.system.errors import MachineError


def run_ranks(count, work):
    """What `work(rank)` returns or raises, for each of `count` ranks that run it at the same time."""
    own, changed = threading.local(), threading.Condition()
    meetings, ended = defaultdict(dict), []  # number of the meeting -> rank -> pickled value

    def gather(value):
        own.meetings += 1
        found = meetings[own.meetings]
        with changed:
            found[own.rank] = pickle.dumps(value)
            changed.notify_all()
            if not changed.wait_for(lambda: len(found) == count or ended, timeout=60) or len(found) < count:
                raise MachineError("Another process has ended.")
        return [pickle.loads(found[rank]) for rank in range(count)]

    def add_up(values, *, point=0):
        points, parts = zip(*gather((point, values)), strict=True)
        assert len(set(points)) == 1
        values.copy_(sum(parts))

    def run(rank):
        own.rank, own.meetings = rank, 0
        try:
            return work(rank)
        except BaseException as error:
            return error
        finally:
            with changed:
                ended.append(rank)
                changed.notify_all()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(count) as threads:
        patch.setattr(ranks, "rank_and_count", lambda: (own.rank, count))
        patch.setattr(ranks, "gather", gather)
        patch.setattr(ranks, "add_up", add_up)
        return list(threads.map(run, range(count)))
