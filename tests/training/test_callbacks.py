import json
import signal
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState

from helpers.runs import small_run
from hfprobe.config.run import make_run
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


def test_histograms_count_epochs_as_trainer_does(dataset_folder, tmp_path):
    """Four batches, three to a step: an epoch has two steps."""
    small_run(dataset_folder, tmp_path, num_train_epochs=3, gradient_accumulation_steps=3, histogram_epochs=1)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    assert [event.step for event in events.Histograms("weights/features/0/weight")] == [1, 2, 3]


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
    assert [event.step for event in events.Histograms("weights/features/0/weight")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("values", "stops"),
    [([1, 2, 3], False), ([3, 2], False), ([3, 2, 2], True), ([3, 2, 4, 1], False), ([3, 3, 3], True)],
)
def test_early_stopping_counts_in_the_log_history(values, stops):
    config = make_run(output_dir="unused")
    state, control = TrainerState(), TrainerControl()
    state.log_history = [{"eval_accuracy": value} for value in values]
    EarlyStopping(patience=2).on_evaluate(config.training, state, control, metrics={})
    assert control.should_training_stop is stops


def test_profile_writes_a_trace_and_two_tables(dataset_folder, tmp_path):
    small_run(dataset_folder, tmp_path, num_train_epochs=4, profile=True)
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::convolution" in names or "aten::conv2d" in names
    for name in ("time", "memory"):
        assert "conv" in (tmp_path / "profile" / f"operators_by_{name}.txt").read_text()
