import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from transformers import EvalPrediction, Trainer, TrainerControl, TrainerState, set_seed
from transformers.trainer_utils import PredictionOutput

from helpers.images import load_splits
from helpers.runs import small_run
from hfprobe.config.run import make_run
from hfprobe.evaluation.metrics import ClassificationMetric, compute_metrics
from hfprobe.models import build_model
from hfprobe.system.errors import CheckFailedError, InputError, StoppedError
from hfprobe.training.assembly import build_trainer
from hfprobe.training.callbacks import EarlyStopping, StopOnSignal
from hfprobe.training.checkpoints import reading
from hfprobe.training.private_api import HookedTrainer
from hfprobe.training.publish import push_best
from hfprobe.training.record import read_result
from hfprobe.training.run import check_figures, train
from hfprobe.training.trainer import ProbeTrainer

ROOT = Path(__file__).parents[2]


def test_metric_equals_scikit_learn_and_works_in_parts():
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 5, 300), generator.normal(size=(300, 6))  # nobody is of class 5
    expected = {
        "accuracy": accuracy_score(labels, logits.argmax(1)),
        "macro_f1": f1_score(labels, logits.argmax(1), average="macro", zero_division=0),
    }
    assert compute_metrics(EvalPrediction(predictions=logits, label_ids=labels)) == pytest.approx(expected)
    metric = ClassificationMetric()
    for part in np.array_split(np.arange(300), 7):
        metric.add_batch(predictions=logits[part].argmax(1), references=labels[part])
    assert metric.compute() == pytest.approx(expected)


def test_a_run_learns_and_its_folder_explains_itself(dataset_folder, tmp_path):
    trainer, result = small_run(
        dataset_folder, tmp_path, num_train_epochs=8, per_device_train_batch_size=20, histogram_epochs=4
    )
    assert result.metrics["accuracy"] > 0.9
    assert result.n_validation == 40
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["result"]["metrics"] == result.metrics
    assert (record["parameters"], record["images"]) == (2_471_941, {"train": 160, "validation": 40})
    assert len(record["data_fingerprint"]) == 64
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    # The model holds the best epoch, and the best is an evaluation that was logged.
    best = max(entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry)
    assert result.metrics["accuracy"] == best

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    tags = events.Tags()
    for tag in ("train/loss", "train/accuracy", "train/learning_rate", "eval/loss", "eval/accuracy", "eval/macro_f1"):
        assert len(events.Scalars(tag)) == 8
    names = {name.replace(".", "/") for name, _ in trainer.model.named_parameters()}
    assert set(tags["histograms"]) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    histograms = events.Histograms("gradients/features/0/weight")
    assert [event.step for event in histograms] == [1, 4, 8]
    assert all(event.histogram_value.max > 0 for event in histograms)
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(best)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": "lomo", "optimizer": "optim"}, "ImportError: You need to install `lomo_optim`"),
        ({"optim_args": "x", "optimizer": "optim"}, "ValueError: not enough values to unpack"),
    ],
)
def test_a_flag_of_transformers_that_does_not_fit_is_one_line(dataset_folder, tmp_path, values, message):
    with pytest.raises(InputError, match=re.escape(f"transformers cannot begin with these flags: {message}")):
        small_run(dataset_folder, tmp_path, **values)


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


@pytest.mark.parametrize(
    ("owner", "function", "bug"),
    [
        (ProbeTrainer, "compute_loss", ValueError("bug")),
        (ProbeTrainer, "create_optimizer", AttributeError("bug")),
        (ProbeTrainer, "create_scheduler", RuntimeError("bug")),
        (ProbeTrainer, "get_train_dataloader", KeyError("bug")),
        (EarlyStopping, "on_train_begin", ValueError("bug")),
    ],
)
def test_a_bug_is_not_reported_as_a_flag(dataset_folder, tmp_path, monkeypatch, owner, function, bug):
    monkeypatch.setattr(owner, function, raising(bug))
    with pytest.raises(type(bug), match="bug") as error:
        small_run(dataset_folder, tmp_path)
    assert error.value is bug


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("unable to mmap 4 bytes from file <x>: Cannot allocate memory (12)"),
    ],
)
def test_too_little_memory_is_not_reported_as_a_damaged_checkpoint(shortage):
    with pytest.raises(type(shortage)) as error, reading("checkpoint-4"):
        raise shortage
    assert error.value is shortage
    message = r"^'checkpoint-4' cannot be loaded: invalid header\. Remove it, and continue from an earlier one"
    with pytest.raises(InputError, match=message), reading("checkpoint-4"):
        raise ValueError("invalid header")


def test_weights_without_a_histogram_end_the_run_at_its_next_log_entry(dataset_folder, tmp_path):
    with pytest.raises(CheckFailedError, match=r"^The training loss is nan at step 4 \(epoch 1, "):
        small_run(dataset_folder, tmp_path, diverges=True)


@pytest.mark.parametrize(
    "values",
    [
        {"eval_strategy": "no", "load_best_model_at_end": False},
        {"eval_delay": 9},
        {"eval_delay": 9, "eval_on_start": True},
    ],
)
def test_a_run_that_was_to_evaluate_nothing_is_evaluated_at_its_end(dataset_folder, tmp_path, values):
    trainer, result = small_run(dataset_folder, tmp_path, num_train_epochs=1, **values)
    assert result.best_epoch == 1
    assert result.metrics["accuracy"] == trainer.evaluate()["eval_accuracy"]
    assert result.metrics["loss"] == pytest.approx(trainer.evaluate()["eval_loss"])


def test_without_loading_the_best_step_the_last_one_is_reported(dataset_folder, tmp_path):
    steps = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 3}
    falling = {"num_train_epochs": 3, "learning_rate": 0.3, "muon_learning_rate": 0.9}
    trainer, result = small_run(dataset_folder, tmp_path, load_best_model_at_end=False, **steps, **falling)
    assert result.best_epoch == 3
    assert result.metrics["loss"] == pytest.approx(trainer.evaluate()["eval_loss"])
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] is None or Path(state["best_model_checkpoint"]).is_dir()


def test_weights_that_do_not_give_the_logged_figures_fail(dataset_folder, tmp_path, monkeypatch):
    def load_another_model(trainer):
        with torch.no_grad():
            trainer.model.classifier[-1].bias[0] += 100

    monkeypatch.setattr(ProbeTrainer, "_load_best_model", load_another_model)
    with pytest.raises(
        CheckFailedError, match=r"^The weights of step \d were evaluated with accuracy .* and now score "
    ):
        small_run(dataset_folder, tmp_path)
    assert read_result(tmp_path) is None


def test_figures_of_an_earlier_process_may_differ_and_the_present_ones_are_reported(caplog):
    logits = np.eye(2, dtype=np.float32)
    now = {"test_accuracy": 1.0, "test_macro_f1": 1.0, "test_loss": 0.3}
    predicted = PredictionOutput(predictions=logits, label_ids=np.arange(2), metrics=now)
    logged = {"eval_accuracy": 0.5, "eval_macro_f1": 0.5, "eval_loss": 0.4, "step": 8}
    found = check_figures(predicted, logged=logged, evaluated_here=False)
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "loss": 0.3}
    assert "The weights of step 8 were evaluated with accuracy 50.00%" in caplog.text
    broken = PredictionOutput(predictions=np.full_like(logits, np.nan), label_ids=np.arange(2), metrics=now)
    with pytest.raises(CheckFailedError, match=r"^The model's predictions are not finite\."):
        check_figures(broken, logged=logged, evaluated_here=False)


@pytest.mark.parametrize("patience", [1, 9])
def test_a_finished_run_that_is_resumed_holds_the_same_weights(dataset_folder, tmp_path, patience):
    values = {"num_train_epochs": 3, "patience": patience, "learning_rate": 1e-9, "muon_learning_rate": 1e-9}
    whole, expected = small_run(dataset_folder, tmp_path, load_best_model_at_end=False, **values)
    again, found = small_run(dataset_folder, tmp_path, load_best_model_at_end=False, **values, resume=True)
    assert (found.metrics, found.best_epoch) == (expected.metrics, expected.best_epoch)
    for mine, theirs in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_validation_loss_is_cross_entropy_and_training_loss_is_smoothed(dataset_folder, tmp_path):
    """40 images in batches of 16: the mean is over images, not over batches."""
    values = {"label_smoothing_factor": 0.5, "metric_for_best_model": "loss", "greater_is_better": False}
    trainer, result = small_run(dataset_folder, tmp_path, num_train_epochs=3, per_device_eval_batch_size=16, **values)
    predicted = trainer.predict(trainer.eval_dataset)
    logits, labels = torch.from_numpy(predicted.predictions), torch.from_numpy(predicted.label_ids)
    likelihood = torch.nn.functional.cross_entropy(logits, labels).item()
    assert result.metrics["loss"] == pytest.approx(likelihood, rel=1e-5)
    assert result.metrics["loss"] == min(e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e)
    trainer.model.train()
    batch = {"pixel_values": torch.zeros(2, 3, 32, 32), "labels": torch.zeros(2, dtype=torch.int64)}
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    smoothed = torch.nn.functional.cross_entropy(outputs["logits"], batch["labels"], label_smoothing=0.5)
    assert loss.item() == pytest.approx(smoothed.item(), rel=1e-5)


def test_principal_filters_are_set_before_training(dataset_folder, tmp_path):
    config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path), first_filters="principal", use_cpu=True)
    model, processor = build_model("cnn", labels=config.data.classes, options=config.model)
    splits = load_splits(config.data, seed=42)
    build_trainer(config=config, model=model, processor=processor, splits=splits)
    filters = model.features[0].weight
    torch.testing.assert_close(filters[27:54], -filters[:27])


def test_a_crop_must_overlap_the_image(dataset_folder, tmp_path):
    with pytest.raises(InputError, match=re.escape("--crop_shift is 32; allowed: 0 to 31.")):
        small_run(dataset_folder, tmp_path, crop_shift=32)


def test_training_accuracy_is_that_of_the_epoch(dataset_folder, tmp_path):
    """With a learning rate of nearly nothing and no dropout, the logged accuracy is the fixed model's own."""
    trainer, _ = small_run(
        dataset_folder,
        tmp_path,
        num_train_epochs=1,
        learning_rate=1e-12,
        muon_learning_rate=1e-12,
        dropout=0.0,
        augment=False,
    )
    logged = next(entry["accuracy"] for entry in trainer.state.log_history if "accuracy" in entry)
    dataset = trainer.train_dataset
    batch = dataset.__getitems__(range(len(dataset)))
    # BatchNorm uses batch statistics in training, so the batches of the epoch differ a little from the whole set.
    with torch.no_grad():
        accuracy = (trainer.model.train()(**batch).logits.argmax(-1) == batch["labels"]).float().mean().item()
    assert logged == pytest.approx(accuracy, abs=0.1)


@pytest.mark.parametrize("clipping", [0.0, 0.5])
def test_what_the_trainer_skips_changes_no_loss_and_no_weight(dataset_folder, tmp_path, monkeypatch, clipping):
    lean, _ = small_run(dataset_folder, tmp_path / "lean", max_grad_norm=clipping)
    monkeypatch.delattr(ProbeTrainer, "floating_point_ops")
    monkeypatch.delattr(HookedTrainer, "_get_grad_norm")
    plain, _ = small_run(dataset_folder, tmp_path / "plain", max_grad_norm=clipping, logging_nan_inf_filter=True)
    assert plain.state.total_flos > lean.state.total_flos == 0
    for key in ("loss", "eval_loss", "eval_accuracy"):
        found, expected = ([e[key] for e in t.state.log_history if key in e] for t in (lean, plain))
        assert len(found) == 2
        assert found == expected
    norms = [[e.get("grad_norm") for e in t.state.log_history if "loss" in e] for t in (lean, plain)]
    assert all(norms[1])
    assert norms[0] == (norms[1] if clipping else [None, None])
    for mine, theirs in zip(lean.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "values",
    [
        {"gradient_accumulation_steps": 3},
        {"logging_strategy": "steps", "logging_steps": 3, "num_train_epochs": 3},
        {"logging_nan_inf_filter": True},
    ],
)
def test_the_logged_loss_is_that_of_trainer_where_nothing_is_resumed(dataset_folder, tmp_path, monkeypatch, values):
    step, log, logged = Trainer.training_step, ProbeTrainer.log, []

    def training_step(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        return loss * float("nan") if self.args.logging_nan_inf_filter and self.state.global_step == 2 else loss

    def watch(self, logs, *args):
        trainers_own = logs.get("loss")
        log(self, logs, *args)
        logged.append((trainers_own, logs.get("loss")))

    monkeypatch.setattr(Trainer, "training_step", training_step)
    monkeypatch.setattr(ProbeTrainer, "log", watch)
    small_run(dataset_folder, tmp_path, **values)
    logged = [pair for pair in logged if pair != (None, None)]
    assert len(logged) >= 2
    assert all(trainers_own == mine for trainers_own, mine in logged)


def test_a_loss_that_is_no_number_ends_the_run_and_names_what_is_left(dataset_folder, tmp_path, monkeypatch):
    original = ProbeTrainer.compute_loss

    def diverge_in_the_second_epoch(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        return loss * float("nan") if self.model.training and self.state.global_step == 5 else loss

    monkeypatch.setattr(ProbeTrainer, "compute_loss", diverge_in_the_second_epoch)
    with pytest.raises(CheckFailedError) as error:
        small_run(dataset_folder, tmp_path)
    assert str(error.value).startswith("The training loss is nan at step 8 (epoch 2, learning rate ")
    assert str(error.value).endswith(f"Use a smaller --lr. The last good checkpoint: {tmp_path}/checkpoint-4")
    weights = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


@pytest.mark.parametrize(
    "values",
    [
        {"logging_strategy": "no"},
        {"logging_strategy": "steps", "logging_steps": 500},
        {"logging_strategy": "no", "logging_nan_inf_filter": True},
        {"logging_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False},
        {"logging_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "save_strategy": "no"},
    ],
)
def test_a_run_that_diverges_without_logging_it_fails_and_saves_nothing(dataset_folder, tmp_path, values):
    with pytest.raises(CheckFailedError, match=r"Use a smaller --lr. No checkpoint was saved before.$"):
        small_run(dataset_folder, tmp_path, diverges=True, report_to="none", **values)
    assert not list(tmp_path.glob("checkpoint-*"))
    assert read_result(tmp_path) is None
    for file in tmp_path.rglob("*.json"):
        assert not re.search(r"\b(NaN|Infinity)\b", file.read_text())


def test_a_gradient_norm_that_is_not_finite_is_not_logged(dataset_folder, tmp_path, monkeypatch):
    """A scaled float16 gradient may overflow: the step is skipped, and the run continues."""
    monkeypatch.setattr(ProbeTrainer, "_get_grad_norm", lambda *args, **kwargs: float("inf"))
    trainer, _ = small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert not any("grad_norm" in entry for entry in trainer.state.log_history)


def test_bfloat16_of_the_accelerate_configuration_is_used_and_recorded(dataset_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hfprobe.config.arguments.has_bf16_units", lambda: True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    seen = []
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda *args: seen.append(forward(*args)) or seen[-1])
    with caplog.at_level("INFO", logger="hfprobe"):
        small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert {output.dtype for output in seen} == {torch.bfloat16}
    assert "Training in mixed precision: bf16." in caplog.messages
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == "bf16"


def test_float32_is_recorded(dataset_folder, tmp_path):
    small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == "fp32"


def test_reference_optimizer_is_adam_with_coupled_weight_decay_on_everything(dataset_folder, tmp_path):
    trainer, _ = small_run(dataset_folder, tmp_path, recipe="reference", num_train_epochs=1)
    optimizer = trainer.optimizer.optimizer
    assert type(optimizer) is torch.optim.Adam
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4]
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 2_471_941
    scheduler = trainer.lr_scheduler
    assert (scheduler.mode, scheduler.factor, scheduler.patience) == ("max", 0.5, 5)


def test_two_deterministic_runs_agree_to_the_bit(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.deterministic", False)  # put back what the runs change
    monkeypatch.setattr("torch.backends.cudnn.benchmark", False)
    try:
        one, other = (
            small_run(dataset_folder, tmp_path / name, full_determinism=True, num_train_epochs=1)[0] for name in "ab"
        )
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_run_stopped_before_its_first_checkpoint_begins_again(dataset_folder, tmp_path):
    whole, _ = small_run(dataset_folder, tmp_path / "whole", num_train_epochs=1)
    resumed, _ = small_run(dataset_folder, tmp_path / "resumed", num_train_epochs=1, resume=True)
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_resume_ends_where_the_uninterrupted_run_ends(dataset_folder, tmp_path):
    whole, _ = small_run(dataset_folder, tmp_path / "whole", num_train_epochs=3)

    class Interrupted(Exception):
        pass

    config = {"num_train_epochs": 3}
    folder = tmp_path / "halves"
    original = ProbeTrainer._save_checkpoint

    def stop_after_saving(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProbeTrainer, "_save_checkpoint", stop_after_saving)
        with pytest.raises(Interrupted):
            small_run(dataset_folder, folder, **config)
    resumed, _ = small_run(dataset_folder, folder, **config, resume=True)
    assert resumed.state.global_step == whole.state.global_step
    for name, weights in load_file(sorted((tmp_path / "whole").glob("checkpoint-*"))[-1] / "model.safetensors").items():
        assert torch.equal(weights, load_file(sorted(folder.glob("checkpoint-*"))[-1] / "model.safetensors")[name])


WORKERS = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3, "save_steps": 3}


@pytest.fixture
def ended_workers(monkeypatch):
    """Loader workers end with the test: as garbage, torch may close their queues first, and wait 5 s for each."""
    started = []
    start = _MultiProcessingDataLoaderIter.__init__

    def record(self, loader):
        start(self, loader)
        started.append(self)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__init__", record)
    yield
    for workers in started:
        workers._shutdown_workers()


@pytest.mark.usefixtures("ended_workers")
@pytest.mark.parametrize("values", [WORKERS, WORKERS | STEPS], ids=["at an epoch's end", "in mid-epoch"])
def test_resume_with_persistent_workers_ends_where_the_uninterrupted_run_ends(
    dataset_folder, tmp_path, monkeypatch, values
):
    whole, expected = small_run(dataset_folder, tmp_path / "whole", num_train_epochs=3, **values)

    class Interrupted(Exception):
        pass

    save = ProbeTrainer._save_checkpoint

    def stop_after_saving(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise Interrupted

    monkeypatch.setattr(ProbeTrainer, "_save_checkpoint", stop_after_saving)
    with pytest.raises(Interrupted):
        small_run(dataset_folder, tmp_path / "parts", num_train_epochs=3, **values)
    monkeypatch.setattr(ProbeTrainer, "_save_checkpoint", save)
    resumed, found = small_run(dataset_folder, tmp_path / "parts", num_train_epochs=3, resume=True, **values)
    assert found.metrics == expected.metrics
    losses = [[e["loss"] for e in trainer.state.log_history if "loss" in e] for trainer in (whole, resumed)]
    assert losses[0] == losses[1]
    last = [f"checkpoint-{trainer.state.global_step}/model.safetensors" for trainer in (whole, resumed)]
    weights = load_file(tmp_path / "whole" / last[0]), load_file(tmp_path / "parts" / last[1])
    assert {name: (weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]} == dict.fromkeys(
        weights[0], 0
    )


def test_without_persistent_workers_the_loaders_draw_as_those_of_trainer(dataset_folder, tmp_path, monkeypatch):
    mine, _ = small_run(dataset_folder, tmp_path / "mine")
    for name in ("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader"):
        monkeypatch.delattr(ProbeTrainer, name)
    plain, _ = small_run(dataset_folder, tmp_path / "plain")
    for one, other in zip(mine.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


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


@pytest.mark.parametrize(
    ("values", "shown", "hidden"),
    [
        ({}, ["optimizer | muon", "muon_learning_rate | 0.08", "effective_batch_size | 40"], ["optim |", "penalty"]),
        ({"optimizer": "adam"}, ["optimizer | adam", "learning_rate | 0.002"], ["optim |", "muon_learning_rate"]),
        ({"optimizer": "optim"}, ["optim | adamw_torch"], ["muon_momentum"]),
        ({"augment": False}, ["augment | False"], ["flips", "crop_padding"]),
        (
            {"model": "vit", "backbone": "resnet10t", "backbone_weights": "random"},
            ["penalty | ", "head | exact", "views | 1"],
            [
                "learning_rate",
                "optim",
                "batch_size",
                "patience",
                "label_smoothing",
                "warmup",
                "flips",
                "num_train_epochs",
            ],
        ),
        (
            {"model": "vit", "backbone": "resnet10t", "backbone_weights": "random", "head": "sgd"},
            ["optim | adamw_torch", "learning_rate | 0.002", "head | sgd"],
            ["penalty", "flips"],
        ),
    ],
)
def test_the_card_and_the_record_list_settings_that_have_an_effect(dataset_folder, tmp_path, values, shown, hidden):
    values = {"num_train_epochs": 1, "per_device_train_batch_size": 40, "disable_tqdm": True, "use_cpu": True} | values
    config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path / "run"), hub_dir=tmp_path / "hub", **values)
    set_seed(config.training.seed)
    model, processor = build_model(config.training.model, labels=config.data.classes, options=config.model)
    splits = load_splits(config.data, seed=config.training.seed)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    result = train(trainer, config=config, splits=splits)
    card = (push_best(trainer, config=config, splits=splits, result=result).path / "README.md").read_text()
    table = card[card.index("| setting |") :]
    for row in shown:
        assert f"\n| {row}" in table
    for name in hidden:
        assert f"\n| {name}" not in table
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    flat = {name: value for group in record["config"].values() for name, value in group.items()} | record
    assert {row.split(" |")[0] for row in shown} <= flat.keys()
    assert not set(hidden) & flat.keys()


@pytest.mark.slow
def test_two_processes_count_every_validation_image_once(dataset_folder, tmp_path):
    """39 validation images over two ranks: the sampler pads, the count must not."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29611",
         ROOT / "scripts" / "train.py", "--use_cpu", "--dataset", dataset_folder, "--output_dir", "run",
         "--epochs", "1", "--max_eval_samples", "39", "--per_device_eval_batch_size", "4", "--batch_size", "20"],
        capture_output=True, text=True, cwd=tmp_path, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["processes"] == 2
    # A share of 39: an image counted twice or not at all would give another denominator.
    correct = record["result"]["metrics"]["accuracy"] * 39
    assert correct == pytest.approx(round(correct), abs=1e-6)
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["max_steps"] == 4  # 160 images, 20 a process
    assert done.stdout.count("Done: ") == 1
    assert len(list((tmp_path / "hub" / "models--hfprobe--simple-cnn" / "snapshots").iterdir())) == 1
