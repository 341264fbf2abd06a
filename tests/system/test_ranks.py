import re
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.ranks import run_ranks
from hfprobe.system import ranks
from hfprobe.system.errors import CheckFailedError, InputError, MachineError


def test_one_process_has_all_the_work_and_waits_for_none():
    assert ranks.rank_and_count() == (0, 1)
    assert ranks.count_beside() == 1
    assert ranks.gather("value") == ["value"]
    assert ranks.from_first(lambda: "found") == "found"
    assert ranks.name_share() == ""
    assert list(ranks.share_of(10, batch_size=4)) == list(range(10))
    with pytest.raises(ZeroDivisionError), ranks.first_before_others():
        1 / 0  # noqa: B018


@given(count=st.integers(0, 200), batch_size=st.integers(1, 40), processes=st.integers(1, 9))
def test_shares_are_the_list_in_order_in_the_batches_of_one_process(count, batch_size, processes):
    with pytest.MonkeyPatch.context() as patch:
        shares = []
        for rank in range(processes):
            patch.setattr(ranks, "rank_and_count", lambda rank=rank: (rank, processes))
            shares.append(list(ranks.share_of(count, batch_size=batch_size)))
    assert list(chain(*shares)) == list(range(count))
    batches = [share[first : first + batch_size] for share in shares for first in range(0, len(share), batch_size)]
    assert batches == [list(range(count))[first : first + batch_size] for first in range(0, count, batch_size)]
    sizes = [-(-len(share) // batch_size) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_work_of_the_first_process_is_done_once_and_known_to_all():
    called = []
    found = run_ranks(3, lambda rank: ranks.from_first(lambda: called.append(rank) or f"found by {rank}"))
    assert found == ["found by 0"] * 3
    assert called == [0]


def test_the_first_process_is_done_before_the_others_begin():
    order = []

    def work(rank):
        with ranks.first_before_others():
            order.append(f"{rank} begins")
            order.append(f"{rank} ends")

    assert run_ranks(2, work) == [None, None]
    assert order == ["0 begins", "0 ends", "1 begins", "1 ends"]


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("meeting", [ranks.together, ranks.first_before_others])
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InputError("No such folder."), InputError, "No such folder."),
        (OSError(28, "No space left on device"), MachineError, "No space left on device. Free some space"),
        (KeyError("a bug"), CheckFailedError, "KeyError: 'a bug'"),
    ],
)
def test_error_of_one_process_ends_the_others_with_its_message_and_exit_code(failing, meeting, error, kind, text):
    def work(rank):
        with meeting():
            if rank == failing:
                raise error

    found = run_ranks(2, work)
    assert found[failing] is error
    assert type(found[1 - failing]) is kind
    assert re.match(re.escape(f"Process {failing} of 2: {text}"), str(found[1 - failing]))


def test_what_fails_in_the_first_process_is_not_tried_by_the_others():
    tried = []

    def work(rank):
        with ranks.first_before_others():
            tried.append(rank)
            raise InputError("No such dataset.")

    assert [type(error) for error in run_ranks(2, work)] == [InputError, InputError]
    assert tried == [0]


def test_the_process_that_has_other_images_is_named_by_all():
    found = run_ranks(3, lambda rank: ranks.check_same("abc"[rank // 2], what="images"))
    assert [type(error) for error in found] == 3 * [InputError]
    expected = "Process 2 of 3 has other images than process 0. Start all processes with the same files, settings and"
    assert {str(error)[: len(expected)] for error in found} == {expected}
    assert run_ranks(2, lambda rank: ranks.check_same("same", what="images")) == [None, None]
