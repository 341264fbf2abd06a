import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.trainer_utils import PredictionOutput

import hfprobe
from helpers.runs import interrupted_run, small_run
from hfprobe.models.thresholds import Thresholds
from hfprobe.system.errors import CheckFailedError
from hfprobe.training.fit import check_figures
from hfprobe.training.record import RunRecord
from hfprobe.training.trainer import ProbeTrainer

ROOT = Path(__file__).parents[2]


def test_a_run_learns_and_its_folder_contains_its_record_and_curves(dataset_folder, tmp_path):
    trainer, result = small_run(
        dataset_folder, tmp_path, num_train_epochs=8, per_device_train_batch_size=20, histogram_epochs=4
    )
    assert result.metrics["accuracy"] > 0.9
    assert result.n_validation == 40
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["result"]["metrics"] == result.metrics
    assert (record["parameters"], record["images"]) == (
        trainer.model.num_parameters(),
        {"train": 160, "validation": 40},
    )
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
    assert [event.step for event in histograms] == [8, 32, 64]
    assert all(event.histogram_value.max > 0 for event in histograms)
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(best)


def test_a_run_stores_thresholds_that_an_evaluation_of_validation_repeats(dataset_folder, tmp_path):
    trainer, _ = small_run(dataset_folder, tmp_path, num_train_epochs=8, per_device_train_batch_size=20)
    thresholds = Thresholds.of(trainer.model)
    logits = trainer.predict(trainer.eval_dataset).predictions
    for chosen, divisor in (
        (thresholds.plain, 1),
        (thresholds.calibrated, trainer.model.config.calibration_temperature),
    ):
        confidences = (torch.from_numpy(logits) / divisor).softmax(-1).numpy().max(axis=1)
        assert [one.accuracy for one in chosen] == [0.9, 0.95, 0.98, 0.99]
        assert {one.n for one in chosen} == {40}
        assert chosen[0].threshold is not None  # 29 images without an error show 90 %
        assert chosen[0].answered == (confidences >= chosen[0].threshold).sum() >= 29
        assert [one.threshold for one in chosen[1:]] == [None] * 3  # 59 images would be needed


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
def test_a_run_without_evaluations_is_evaluated_at_its_end(dataset_folder, tmp_path, values):
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


def test_weights_that_do_not_reproduce_the_logged_metrics_are_an_error(dataset_folder, tmp_path, monkeypatch):
    def load_another_model(trainer):
        with torch.no_grad():
            trainer.model.classifier[-1].bias[0] += 100

    monkeypatch.setattr(ProbeTrainer, "_load_best_model", load_another_model)
    with pytest.raises(
        CheckFailedError, match=r"^The weights of step \d were evaluated with accuracy .* and now score "
    ):
        small_run(dataset_folder, tmp_path)
    assert RunRecord.load(tmp_path).result is None


def test_metrics_of_an_earlier_process_may_differ_and_the_new_ones_are_reported(caplog):
    logits = np.eye(2, dtype=np.float32)
    now = {"test_accuracy": 1.0, "test_macro_f1": 1.0, "test_balanced_accuracy": 1.0, "test_loss": 0.3}
    predicted = PredictionOutput(predictions=logits, label_ids=np.arange(2), metrics=now)
    logged = {"eval_accuracy": 0.5, "eval_macro_f1": 0.5, "eval_balanced_accuracy": 0.5, "eval_loss": 0.4, "step": 8}
    found = check_figures(predicted, logged=logged, evaluated_here=False)
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "balanced_accuracy": 1.0, "loss": 0.3}
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


def test_a_loss_of_nan_ends_the_run_and_the_error_names_the_last_good_checkpoint(dataset_folder, tmp_path, monkeypatch):
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
    assert RunRecord.load(tmp_path).result is None
    for file in tmp_path.rglob("*.json"):
        assert not re.search(r"\b(NaN|Infinity)\b", file.read_text())


def test_a_run_stopped_before_its_first_checkpoint_begins_again(dataset_folder, tmp_path):
    whole, _ = small_run(dataset_folder, tmp_path / "whole", num_train_epochs=1)
    resumed, _ = small_run(dataset_folder, tmp_path / "resumed", num_train_epochs=1, resume=True)
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_resume_ends_where_the_uninterrupted_run_ends(dataset_folder, tmp_path):
    whole, _ = small_run(dataset_folder, tmp_path / "whole", num_train_epochs=3)
    folder = tmp_path / "halves"
    interrupted_run(dataset_folder, folder, num_train_epochs=3)
    resumed, _ = small_run(dataset_folder, folder, num_train_epochs=3, resume=True)
    assert resumed.state.global_step == whole.state.global_step
    for name, weights in load_file(sorted((tmp_path / "whole").glob("checkpoint-*"))[-1] / "model.safetensors").items():
        assert torch.equal(weights, load_file(sorted(folder.glob("checkpoint-*"))[-1] / "model.safetensors")[name])


@pytest.mark.slow
def test_resume_with_persistent_workers_ends_where_the_uninterrupted_run_ends(dataset_folder, tmp_path):
    """At the end of an epoch; tests/training/test_loaders.py does it in mid-epoch."""
    values = {"num_train_epochs": 3, "dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    whole, expected = small_run(dataset_folder, tmp_path / "whole", **values)
    interrupted_run(dataset_folder, tmp_path / "parts", **values)
    resumed, found = small_run(dataset_folder, tmp_path / "parts", resume=True, **values)
    assert found.metrics == expected.metrics
    losses = [[e["loss"] for e in trainer.state.log_history if "loss" in e] for trainer in (whole, resumed)]
    assert losses[0] == losses[1]
    last = [f"checkpoint-{trainer.state.global_step}/model.safetensors" for trainer in (whole, resumed)]
    weights = load_file(tmp_path / "whole" / last[0]), load_file(tmp_path / "parts" / last[1])
    assert {name: (weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]} == dict.fromkeys(
        weights[0], 0
    )


@pytest.mark.slow
def test_two_processes_count_every_validation_image_once(dataset_folder, tmp_path):
    """39 validation images over two ranks: the sampler pads, the count must not."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29611",
         ROOT / "scripts" / "train.py", "--use_cpu", "--dataset", dataset_folder, "--output_dir", "run",
         "--epochs", "1", "--max_eval_samples", "39", "--precision", "fp32",
         "--per_device_eval_batch_size", "4", "--batch_size", "20"],
        capture_output=True, text=True, cwd=tmp_path, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["processes"] == 2
    # A share of 39: an image counted twice or not at all would give another denominator.
    correct = record["result"]["metrics"]["accuracy"] * 39
    assert correct == pytest.approx(round(correct), abs=1e-6)
    # One process evaluates the same images with another batch size.
    images = hfprobe.load_images(dataset_folder, max_eval_samples=39)
    model = hfprobe.load("simple-cnn-small", hub_dir=tmp_path / "hub")
    evaluated = hfprobe.evaluate(model, images, split="validation")
    assert record["result"]["metrics"]["loss"] == pytest.approx(evaluated.metrics.nll, rel=1e-5)
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["max_steps"] == 4  # 160 images, 20 a process
    assert done.stdout.count("Done: ") == 1
    assert len(list((tmp_path / "hub" / "models--hfprobe--simple-cnn-small" / "snapshots").iterdir())) == 1
