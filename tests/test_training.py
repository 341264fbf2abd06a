import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_splits
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EvalPrediction, TrainerControl, TrainerState, set_seed

from hfprobe.callbacks import EarlyStopping
from hfprobe.config import make_run
from hfprobe.errors import CheckFailedError, InputError
from hfprobe.metrics import ClassificationMetric, compute_metrics
from hfprobe.models import build_model
from hfprobe.trainer import ProbeTrainer
from hfprobe.training import build_trainer, push_best, train

ROOT = Path(__file__).parent.parent


def small_run(dataset_folder, folder, **values):
    defaults = {"num_train_epochs": 2, "per_device_train_batch_size": 40, "disable_tqdm": True, "use_cpu": True}
    config = make_run(dataset=str(dataset_folder), output_dir=str(folder), **defaults | values)
    set_seed(config.training.seed)
    model, processor = build_model("cnn", labels=config.data.classes, options=config.model)
    splits = load_splits(config.data, seed=config.training.seed)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    return trainer, train(trainer, config=config, splits=splits)


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
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "ValueError: One of min_lr or min_lr_rate should be set"),
        ({"lr_scheduler_kwargs": {"nosuch": 1}}, "TypeError: get_linear_schedule_with_warmup() got an unexpected"),
        (
            {"lr_scheduler_type": "polynomial", "warmup_steps": 2, "lr_scheduler_kwargs": {"power": "x"}},
            "TypeError: unsupported operand",
        ),
        ({"gradient_checkpointing": True}, "ValueError: SimpleCNN does not support "),
        ({"report_to": "nosuch"}, "ValueError: nosuch is not supported"),
        ({"dataloader_persistent_workers": True}, "ValueError: persistent_workers option needs num_workers > 0"),
    ],
)
def test_a_flag_of_transformers_that_does_not_fit_is_one_line(dataset_folder, tmp_path, values, message):
    with pytest.raises(InputError, match=re.escape(f"transformers cannot begin with these flags: {message}")):
        small_run(dataset_folder, tmp_path, **values)


def test_a_bug_in_the_first_step_is_no_flag(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ProbeTrainer, "compute_loss", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small_run(dataset_folder, tmp_path)


def test_weights_without_a_histogram_end_the_run_at_its_next_log_entry(dataset_folder, tmp_path):
    with pytest.raises(CheckFailedError, match=r"^The training loss is nan at step 4 \(epoch 1, "):
        small_run(dataset_folder, tmp_path, learning_rate=1e30, muon_learning_rate=1e30)


@pytest.mark.parametrize("values", [{"eval_strategy": "no", "load_best_model_at_end": False}, {"eval_delay": 9}])
def test_a_run_that_was_to_evaluate_nothing_is_evaluated_at_its_end(dataset_folder, tmp_path, values):
    trainer, result = small_run(dataset_folder, tmp_path, num_train_epochs=1, **values)
    assert result.best_epoch == 1
    assert result.metrics["accuracy"] == trainer.evaluate()["eval_accuracy"]


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
    for name in ("floating_point_ops", "_get_grad_norm"):
        monkeypatch.delattr(ProbeTrainer, name)
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


def test_a_loss_that_is_no_number_ends_the_run_and_names_what_is_left(dataset_folder, tmp_path, monkeypatch):
    original = ProbeTrainer.compute_loss

    def diverge_in_the_second_epoch(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        return loss * float("nan") if self.model.training and self.state.global_step == 5 else loss

    monkeypatch.setattr(ProbeTrainer, "compute_loss", diverge_in_the_second_epoch)
    with pytest.raises(CheckFailedError) as error:
        small_run(dataset_folder, tmp_path)
    assert str(error.value).startswith("The training loss is nan at step 8 (epoch 2, learning rate ")
    assert str(error.value).endswith(f"Give a smaller --lr. The last good checkpoint: {tmp_path}/checkpoint-4")
    weights = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


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
    import hfprobe.training as training

    original = training.ProbeTrainer._save_checkpoint

    def stop_after_saving(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.ProbeTrainer, "_save_checkpoint", stop_after_saving)
        with pytest.raises(Interrupted):
            small_run(dataset_folder, folder, **config)
    resumed, _ = small_run(dataset_folder, folder, **config, resume=True)
    assert resumed.state.global_step == whole.state.global_step
    for name, weights in load_file(sorted((tmp_path / "whole").glob("checkpoint-*"))[-1] / "model.safetensors").items():
        assert torch.equal(weights, load_file(sorted(folder.glob("checkpoint-*"))[-1] / "model.safetensors")[name])


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
