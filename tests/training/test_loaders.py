import multiprocessing

import pytest
from safetensors.torch import load_file

from helpers.runs import interrupted_run, small_run

STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3, "save_steps": 3, "report_to": "none"}
PERSISTENT = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
KINDS = {
    "ordinary": {"dataloader_num_workers": 2},
    "persistent": PERSISTENT,
    "prefetching": PERSISTENT | {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4},
}


def last_weights(folder):
    return load_file(folder / "checkpoint-8" / "model.safetensors")


def assert_equal_weights(folder, expected):
    found = last_weights(folder)
    assert {name: (found[name] - expected[name]).abs().max().item() for name in found} == dict.fromkeys(expected, 0)


@pytest.fixture(scope="module")
def without_workers(dataset_folder, tmp_path_factory):
    """The weights of two epochs of four steps, and the folder of the same run, stopped after its third step."""
    folder = tmp_path_factory.mktemp("without")
    trainer, _ = small_run(dataset_folder, folder / "whole", dropout=0.5, **STEPS)
    assert trainer.state.global_step == 8
    return last_weights(folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("workers", KINDS.values(), ids=KINDS)
def test_the_weights_do_not_depend_on_the_workers(dataset_folder, tmp_path, without_workers, workers):
    small_run(dataset_folder, tmp_path, dropout=0.5, **STEPS, **workers)
    assert_equal_weights(tmp_path, without_workers)
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [({}, PERSISTENT), (PERSISTENT, {}), (PERSISTENT, PERSISTENT)])
def test_a_run_that_is_resumed_in_mid_epoch_may_change_its_workers(
    dataset_folder, tmp_path, without_workers, before, after
):
    interrupted_run(dataset_folder, tmp_path, dropout=0.5, **STEPS, **before)
    small_run(dataset_folder, tmp_path, dropout=0.5, resume=True, **STEPS, **after)
    assert_equal_weights(tmp_path, without_workers)
    assert not multiprocessing.active_children()
