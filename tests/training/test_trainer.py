import json
import re

import pytest
import torch
import yaml
from transformers import Trainer

from helpers.runs import small_run
from hfprobe.system.errors import InputError
from hfprobe.training.callbacks import EarlyStopping
from hfprobe.training.private_api import HookedTrainer
from hfprobe.training.trainer import ProbeTrainer


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": "lomo", "optimizer": "optim"}, "ImportError: You need to install `lomo_optim`"),
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


def test_the_validation_loss_counts_every_image_once_if_batches_are_padded(dataset_folder, tmp_path, monkeypatch):
    """Several processes repeat images so that their batches are equally long. Trainer's own mean depends on that."""
    loop, own = Trainer.evaluation_loop, []

    def repeat_images(self, *args, **kwargs):
        # All 16 values of a batch count, although the last batch has 8 images.
        self.gather_function = lambda values: values
        output = loop(self, *args, **kwargs)
        own.append(output.metrics[f"{kwargs['metric_key_prefix']}_loss"])
        return output

    monkeypatch.setattr(Trainer, "evaluation_loop", repeat_images)
    trainer, result = small_run(dataset_folder, tmp_path, num_train_epochs=1, per_device_eval_batch_size=16)
    predicted = trainer.predict(trainer.eval_dataset)
    logits, labels = torch.from_numpy(predicted.predictions), torch.from_numpy(predicted.label_ids)
    expected = torch.nn.functional.cross_entropy(logits, labels).item()
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [*logged, result.metrics["loss"]] == pytest.approx([expected, expected], rel=1e-6)
    assert abs(own[0] - expected) > 0.001


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
def test_computations_that_the_trainer_skips_change_no_loss_and_no_weight(
    dataset_folder, tmp_path, monkeypatch, clipping
):
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


def test_a_gradient_norm_that_is_not_finite_is_not_logged(dataset_folder, tmp_path, monkeypatch):
    """A scaled float16 gradient may overflow: the step is skipped, and the run continues."""
    monkeypatch.setattr(ProbeTrainer, "_get_grad_norm", lambda *args, **kwargs: float("inf"))
    trainer, _ = small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert not any("grad_norm" in entry for entry in trainer.state.log_history)


def test_bfloat16_of_the_accelerate_configuration_is_used_and_recorded(dataset_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    seen = []
    forward = torch.nn.Linear.forward

    def watch(self, images):
        output = forward(self, images)
        seen.append((self.training, output.dtype))
        return output

    monkeypatch.setattr(torch.nn.Linear, "forward", watch)
    with caplog.at_level("INFO", logger="hfprobe"):
        small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}  # evaluations are in float32
    assert "Training in mixed precision: bf16." in caplog.messages
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == "bf16"


def test_float32_without_compilation_is_recorded(dataset_folder, tmp_path):
    small_run(dataset_folder, tmp_path, num_train_epochs=1)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["precision"] == "fp32"
    expected = {"distributed_type": "NO", "mixed_precision": "no", "dynamo": None, "plugins": []}
    assert record["accelerator"] == expected


def test_a_compiler_in_the_environment_is_recorded_and_compared_on_resume(dataset_folder, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr("torch.compile", lambda model, **how: compiled.append(how["backend"]) or model)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert set(compiled) == {"eager"}
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["accelerator"]["dynamo"]["backend"] == "eager"
    assert record["config"]["training"]["torch_compile_backend"] == "eager"
    again = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (again["torch_compile"], again["torch_compile_backend"]) == (True, "eager")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    with pytest.raises(
        InputError, match="--torch_compile was true, is false; --torch_compile_backend was eager, is none"
    ):
        small_run(dataset_folder, tmp_path, num_train_epochs=1, resume=True)


@pytest.mark.usefixtures("whole_network")
def test_reference_optimizer_is_adam_with_coupled_weight_decay_on_everything(dataset_folder, tmp_path):
    trainer, _ = small_run(dataset_folder, tmp_path, recipe="reference", num_train_epochs=1)
    optimizer = trainer.optimizer.optimizer
    assert type(optimizer) is torch.optim.Adam
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4]
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 2_471_941
    scheduler = trainer.lr_scheduler
    assert (scheduler.mode, scheduler.factor, scheduler.patience) == ("max", 0.5, 5)


def test_two_deterministic_runs_are_bit_identical(dataset_folder, tmp_path, monkeypatch):
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


def test_without_persistent_workers_the_loaders_draw_as_those_of_trainer(dataset_folder, tmp_path, monkeypatch):
    mine, _ = small_run(dataset_folder, tmp_path / "mine")
    for name in ("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader"):
        monkeypatch.delattr(ProbeTrainer, name)
    plain, _ = small_run(dataset_folder, tmp_path / "plain")
    for one, other in zip(mine.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)
