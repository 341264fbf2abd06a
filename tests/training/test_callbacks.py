import json
import re
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState

from helpers.runs import interrupted_run, small_run
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import StoppedError
from hfprobe.training.callbacks import EarlyStopping, StopOnSignal
from hfprobe.training.trainer import ProbeTrainer


def test_a_signal_saves_a_checkpoint_that_the_save_strategy_would_not(dataset_folder, tmp_path, monkeypatch):
    ask = StopOnSignal.on_epoch_end

    def ask_in_the_second_epoch(self, args, state, control, **kwargs):
        self._asked = signal.SIGTERM if state.epoch == 2 else 0
        ask(self, args, state, control, **kwargs)

    monkeypatch.setattr(StopOnSignal, "on_epoch_end", ask_in_the_second_epoch)
    slow = {"learning_rate": 1e-9, "muon_learning_rate": 1e-9}  # the second epoch is not a better one
    with pytest.raises(StoppedError, match=r"at step 8 of 12; all is saved in .* run the same command with --resume.$"):
        small_run(dataset_folder, tmp_path, num_train_epochs=3, save_strategy="best", **slow)
    assert (tmp_path / "checkpoint-8").is_dir()


def test_several_processes_ask_each_other_for_signals_once_a_second_and_at_the_end_of_an_epoch(monkeypatch):
    """A fast process and one whose steps take 0.125 s, which gets a signal after step 31."""
    clock, asked_at, slow = [0.0], [], torch.tensor([0.0, 0.125])

    def all_reduce(found, op):
        asked_at.append(stopper.step)
        found.copy_(torch.maximum(found, slow))

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    stopper, state, saved = StopOnSignal(), TrainerState(global_step=0, epoch=0.0), []
    arguments = SimpleNamespace(device=torch.device("cpu"), save_strategy="epoch")
    for step in range(1, 41):
        clock[0] += 0.01
        stopper.step = state.global_step = step
        state.epoch = step / 15
        slow[0] = signal.SIGTERM if step > 31 else 0
        control = TrainerControl()
        stopper.on_step_end(arguments, state, control)
        if step % 15 == 0:
            stopper.on_epoch_end(arguments, state, control)
        saved += [step] * control.should_save
    assert asked_at == [1, 9, 15, 23, 30, 38]
    assert saved == [38]


def test_histograms_are_those_of_the_last_steps_of_epochs_as_trainer_counts_them(dataset_folder, tmp_path):
    """Four batches, three to a step: an epoch has two steps."""
    small_run(dataset_folder, tmp_path, num_train_epochs=3, gradient_accumulation_steps=3, histogram_epochs=1)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    assert [event.step for event in events.Histograms("weights/features/0/weight")] == [2, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize("saved", [0, 1])
def test_a_resumed_run_has_each_step_once_in_tensorboard(dataset_folder, tmp_path, monkeypatch, saved):
    class Interrupted(Exception):
        pass

    save, calls = ProbeTrainer._save_checkpoint, []

    def stop_before_saving(self, *args, **kwargs):
        calls.append(None)
        if len(calls) > saved:
            raise Interrupted
        save(self, *args, **kwargs)

    values = {"num_train_epochs": 3, "histogram_epochs": 1, "logging_strategy": "steps", "logging_steps": 1}
    monkeypatch.setattr(ProbeTrainer, "_save_checkpoint", stop_before_saving)
    with pytest.raises(Interrupted):
        small_run(dataset_folder, tmp_path, **values)
    monkeypatch.setattr(ProbeTrainer, "_save_checkpoint", save)
    time.sleep(1)  # TensorBoard orders event files by the second they were started in
    small_run(dataset_folder, tmp_path, resume=True, **values)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0, "scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))
    assert [event.step for event in events.Scalars("eval/accuracy")] == [4, 8, 12]
    assert [event.step for event in events.Histograms("weights/features/0/weight")] == [4, 8, 12]


@pytest.mark.parametrize(
    ("values", "stops"),
    [([1, 2, 3], False), ([3, 2], False), ([3, 2, 2], True), ([3, 2, 4, 1], False), ([3, 3, 3], True)],
)
def test_early_stopping_counts_in_the_log_history(values, stops):
    config = make_run(output_dir="unused")
    state, control = TrainerState(), TrainerControl()
    state.log_history = [{"eval_accuracy": value, "step": step} for step, value in enumerate(values, start=1)]
    EarlyStopping(patience=2).on_evaluate(config.training, state, control, metrics={})
    assert control.should_training_stop is stops
    control = TrainerControl()
    state.log_history.insert(0, {"eval_accuracy": 9, "step": 0})  # of the initial weights
    EarlyStopping(patience=2).on_evaluate(config.training, state, control, metrics={})
    assert control.should_training_stop is stops


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({"max_steps": 1}, "Training step 1, after 0 steps of warm-up"),
        ({"max_steps": 10}, "Training steps 6 to 10, after 5 steps of warm-up, with 1 evaluation among them"),
        ({"max_steps": 4, "gradient_accumulation_steps": 2}, "Training steps 3 to 4, after 2 steps of warm-up, with 1"),
    ],
)
def test_a_profile_contains_backward_passes_however_short_the_run_is(dataset_folder, tmp_path, caplog, values, title):
    """An epoch has 4 steps."""
    with caplog.at_level("INFO", logger="hfprobe"):
        small_run(dataset_folder, tmp_path, profile=True, report_to="none", **values)
    events = json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    found = re.match(r"Training steps (\d+) to (\d+)", title)
    steps = int(found[2]) - int(found[1]) + 1 if found else 1
    # One for each step, or for each of two accumulated batches.
    assert names.count("aten::_log_softmax_backward_data") == steps * values.get("gradient_accumulation_steps", 1)
    updates = [event for event in events if str(event.get("name")).startswith("Optimizer.step#")]
    # Muon.step calls timm's, which torch records inside of it once any test has used timm's class itself.
    ends = [event["ts"] + event["dur"] for event in updates]
    outer = [
        event
        for event in updates
        if not any(other["ts"] < event["ts"] < end for other, end in zip(updates, ends, strict=True))
    ]
    assert len(outer) == steps
    for name in ("time", "memory"):
        table = (tmp_path / "profile" / f"operators_by_{name}.txt").read_text()
        assert table.startswith(title)
        assert "aten::convolution_backward" in table
    assert [line for line in caplog.messages if line.startswith(title) and "profile in " in line]


def test_without_a_recorded_step_no_profile_is_written_and_a_warning_says_so(dataset_folder, tmp_path, caplog):
    slow = {"learning_rate": 1e-9, "muon_learning_rate": 1e-9}  # the second epoch is not a better one
    values = {"num_train_epochs": 5, "patience": 1, "profile": True, "report_to": "none", **slow}
    small_run(dataset_folder, tmp_path, **values)
    message = "--profile has no effect: the run ended at step 8, and the steps 11 to 15 would have been recorded."
    assert message in caplog.messages
    small_run(dataset_folder, tmp_path, **values, resume=True)
    assert "--profile has no effect: no training step is left." in caplog.messages
    assert not (tmp_path / "profile").exists()


def test_a_profile_that_early_stopping_cuts_short_contains_the_steps_before(dataset_folder, tmp_path):
    slow = {"learning_rate": 1e-9, "muon_learning_rate": 1e-9}
    small_run(dataset_folder, tmp_path, max_steps=15, patience=2, profile=True, report_to="none", **slow)
    table = (tmp_path / "profile" / "operators_by_time.txt").read_text()
    assert table.startswith("Training steps 11 to 12, after 10 steps of warm-up, with 1 evaluation among them.")


def test_a_resumed_run_profiles_the_steps_that_are_left(dataset_folder, tmp_path):
    values = {"num_train_epochs": 2, "profile": True, "report_to": "none"}
    interrupted_run(dataset_folder, tmp_path, **values)
    small_run(dataset_folder, tmp_path, **values, resume=True)
    table = (tmp_path / "profile" / "operators_by_time.txt").read_text()
    assert table.startswith("Training steps 7 to 8, after 2 steps of warm-up.")


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"max_steps": 10}, ["step  4/10", "step  8/10", "step 10/10"]),
        ({"num_train_epochs": 2}, ["epoch   1/2", "epoch   2/2"]),
        ({"num_train_epochs": 1.3, "gradient_accumulation_steps": 3}, ["epoch   1/1.75", "epoch 1.75/1.75"]),
        ({"max_steps": 1, "eval_on_start": True}, ["step 0/1", "step 1/1"]),
    ],
)
def test_a_line_counts_up_to_the_end_of_the_run(dataset_folder, tmp_path, capsys, values, lines):
    """An epoch has 4 batches: with 3 of them in a step, 1.3 epochs are 3 steps, and the third one has 3 batches."""
    small_run(dataset_folder, tmp_path, report_to="none", **values)
    found = [line for line in capsys.readouterr().out.splitlines() if " | " in line]
    assert [line.split(" | ")[0] for line in found] == lines
    assert all("validation loss " in line for line in found)


@pytest.mark.slow
def test_a_resumed_run_does_not_evaluate_its_start_again(dataset_folder, tmp_path):
    """With patience 2, a second evaluation of the checkpoint would end the run an epoch earlier."""
    slow = {"learning_rate": 1e-9, "muon_learning_rate": 1e-9}
    values = {"num_train_epochs": 9, "patience": 2, "eval_on_start": True, "report_to": "none", **slow}
    whole, expected = small_run(dataset_folder, tmp_path / "whole", **values)
    interrupted_run(dataset_folder, tmp_path / "parts", **values)
    resumed, found = small_run(dataset_folder, tmp_path / "parts", resume=True, **values)
    evaluated = [
        [(entry["step"], entry["eval_loss"]) for entry in trainer.state.log_history if "eval_loss" in entry]
        for trainer in (whole, resumed)
    ]
    assert [step for step, _ in evaluated[0]] == [0, 4, 8, 12]
    assert evaluated[1] == evaluated[0]
    assert (found.epochs, found.best_epoch) == (expected.epochs, expected.best_epoch) == (3, 1)
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["config"]["training"]["eval_on_start"]
