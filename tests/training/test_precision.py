import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.runs import interrupted_run, read_splits, run_record, small_config, small_run
from hfprobe import evaluate
from hfprobe.models.loading import load_model
from hfprobe.settings.files import read_config_file
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training.precision import settle_precision
from hfprobe.training.publish import push_best
from hfprobe.training.start import run_training

BACKBONE = {"model": "vit", "backbone": "test_byobnet", "backbone_weights": "random"}


@pytest.fixture
def found(monkeypatch):
    """Sets what the processor and torch say about this device."""

    def say(precision, reason="the test says so"):
        monkeypatch.setattr("hfprobe.training.precision.preferred_precision", lambda device: (precision, reason))

    return say


@pytest.fixture(scope="module")
def bf16_run(dataset_folder, tmp_path_factory):
    """A run in bfloat16, and the same one interrupted after its first epoch and resumed."""
    folder = tmp_path_factory.mktemp("bf16")
    values = {"precision": "bf16", "num_train_epochs": 2, "report_to": "none", "hub_dir": str(folder / "hub")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
        interrupted_run(dataset_folder, folder / "halves", **values)
        resumed = small_run(dataset_folder, folder / "halves", **values, resume=True)
        whole, result = small_run(dataset_folder, folder / "whole", **values)
        predicted = whole.predict(whole.eval_dataset).predictions
        config = make_run(dataset=str(dataset_folder), output_dir=str(folder / "whole"), use_cpu=True, **values)
    splits = read_splits(config.data, seed=42)
    revision = push_best(whole, config=config, splits=splits, result=result)
    return folder, whole, result, resumed, predicted, revision


def test_resume_holds_to_the_bit_in_bfloat16(bf16_run):
    folder, whole, result, (resumed, again), _, _ = bf16_run
    assert again.metrics == result.metrics
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (whole, resumed)]
    assert losses[0] == losses[1]
    name = f"checkpoint-{whole.state.global_step}/model.safetensors"
    weights, others = load_file(folder / "whole" / name), load_file(folder / "halves" / name)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_of(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_of(one)


def test_nothing_that_is_saved_or_published_is_bfloat16(bf16_run):
    folder, _, _, _, _, revision = bf16_run
    files = [*folder.rglob("*.safetensors")]
    assert len(files) >= 4
    assert any(revision.path in file.parents for file in files)
    for file in files:
        assert {weights.dtype for weights in load_file(file).values()} <= {torch.float32, torch.int64}, file
    states = [torch.load(file, weights_only=True) for file in folder.rglob("optimizer.pt")]
    assert states
    assert {tensor.dtype for tensor in tensors_of(states)} == {torch.float32}
    for file in folder.rglob("*config.json"):
        assert "bfloat16" not in file.read_text(), file


def test_figures_of_a_run_in_bfloat16_are_those_of_its_published_weights_in_float32(bf16_run):
    _, trainer, result, _, predicted, revision = bf16_run
    batch = trainer.eval_dataset.__getitems__(range(len(trainer.eval_dataset)))
    for model in (trainer.model.eval(), load_model(revision.path)[0]):  # in memory and as published
        with torch.inference_mode():
            logits = model(pixel_values=batch["pixel_values"]).logits
        np.testing.assert_allclose(predicted, logits.numpy(), rtol=1e-4, atol=1e-5)
    assert result.metrics["accuracy"] == (logits.argmax(-1) == batch["labels"]).double().mean().item()


def test_the_precision_is_recorded_and_the_run_can_be_repeated(bf16_run, monkeypatch):
    folder, _, _, _, _, revision = bf16_run
    record = json.loads((folder / "whole" / "run.json").read_text())
    assert record["precision"] == record["config"]["training"]["precision"] == "bf16"
    run = json.loads((revision.path / "config.json").read_text())["run"]
    assert run["precisions"] == {"precision": "bf16"}
    settings = read_config_file(folder / "whole" / "config.yaml")
    assert settings["precision"] == "bf16"
    assert re.search(r"precision.*bf16", (revision.path / "README.md").read_text())
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    assert make_run(**settings).training.mixed_precision == "bf16"


@pytest.mark.parametrize("values", [{}, {"precision": "fp32"}, {"precision": "auto"}])
def test_a_run_in_bfloat16_is_not_resumed_in_float32(bf16_run, dataset_folder, found, values):
    folder, *_ = bf16_run
    found("fp32")
    values = {"num_train_epochs": 2, "report_to": "none", "hub_dir": str(folder / "hub"), "resume": True} | values
    with pytest.raises(InputError, match=r"cannot be resumed with other settings: --precision was bf16, is fp32\."):
        small_run(dataset_folder, folder / "whole", **values)


def test_a_run_is_resumed_as_it_was_started_where_the_device_does_not_tell(bf16_run, dataset_folder, found, caplog):
    folder, _, result, *_ = bf16_run
    found(None)
    values = {"num_train_epochs": 2, "report_to": "none", "hub_dir": str(folder / "hub"), "precision": "auto"}
    with caplog.at_level("INFO", logger="hfprobe"):
        _, again = small_run(dataset_folder, folder / "whole", **values, resume=True)
    assert "Training in mixed precision: bf16, because the run was started so." in caplog.messages
    assert again.metrics == result.metrics


def settle(config):
    return settle_precision(config)


@pytest.mark.parametrize(
    ("said", "chosen", "line"),
    [
        ("bf16", "bf16", "Training in mixed precision: bf16, because the test says so."),
        ("fp32", "fp32", "Training in float32, because the test says so."),
        (None, "fp32", "Training in float32, because the test says so."),
    ],
)
def test_auto_takes_the_faster_precision_and_says_why(dataset_folder, tmp_path, found, caplog, said, chosen, line):
    found(said)
    config = small_config(dataset_folder, tmp_path, precision="auto")
    assert config.to_dict()["training"]["precision"] == "auto"
    with caplog.at_level("INFO", logger="hfprobe"):
        config = settle(config)
    assert caplog.messages == [line]
    assert config.to_dict()["training"]["precision"] == config.to_settings()["precision"] == chosen
    assert config.training.mixed_precision == {"bf16": "bf16", "fp32": "no"}[chosen]


@pytest.mark.parametrize(
    ("before", "said", "chosen"),
    [("fp32", "bf16", "fp32"), ("fp32", None, "fp32"), ("bf16", None, "bf16"), ("bf16", "fp32", "fp32")],
)
@pytest.mark.parametrize("values", [{}, BACKBONE], ids=["training", "features"])
def test_auto_follows_the_record_of_a_resumed_run(dataset_folder, tmp_path, found, before, said, chosen, values):
    """bfloat16 on a device without units is not taken: `check_same_run` then refuses the difference."""
    found(said)
    name, group = ("feature_precision", "model") if values else ("precision", "training")
    config = small_config(dataset_folder, tmp_path, **values, **{name: "auto"}, resume=True)
    record = run_record(config)
    vars(record.config)[group][name] = before
    (tmp_path / "run").mkdir()
    record.save(tmp_path / "run")
    assert settle(config).to_dict()[group][name] == chosen


@pytest.mark.parametrize(("flags", "env"), [({"bf16": True}, "no"), ({}, "bf16")])
def test_bf16_of_transformers_and_accelerate_win_over_auto(dataset_folder, tmp_path, found, monkeypatch, flags, env):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", env)
    found("fp32")
    config = settle(small_config(dataset_folder, tmp_path, precision="auto", **flags))
    assert config.to_dict()["training"]["precision"] == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert make_run(**config.to_settings()).training.mixed_precision == "bf16"


@pytest.mark.parametrize("said", ["bf16", "fp32", None])
def test_precision_of_features_is_chosen_likewise_and_the_head_stays_in_float32(
    dataset_folder, tmp_path, found, caplog, said
):
    found(said)
    config = small_config(dataset_folder, tmp_path, **BACKBONE, feature_precision="auto", precision="auto")
    with caplog.at_level("INFO", logger="hfprobe"):
        config = settle(config)
    chosen = said or "fp32"
    assert asdict(config.model)["feature_precision"] == config.to_settings()["feature_precision"] == chosen
    assert config.training.mixed_precision == "no"
    assert caplog.messages[-1].startswith(f"Features of the training images in {chosen}, because the test says so")


@pytest.mark.parametrize(("said", "chosen"), [("bf16", "bf16"), ("fp32", "fp32")])
def test_auto_is_the_default(dataset_folder, tmp_path, found, said, chosen):
    found(said)
    config = settle(small_config(dataset_folder, tmp_path))
    assert config.to_settings()["precision"] == config.to_dict()["training"]["precision"] == chosen
    config = settle(small_config(dataset_folder, tmp_path, **BACKBONE))
    assert config.training.mixed_precision == "no"
    assert "precision" not in config.to_settings()  # the head is in float32 anyway


def test_bfloat16_that_is_insisted_on_is_a_warning(dataset_folder, tmp_path, monkeypatch, caplog):
    for module in ("settings.arguments", "training.precision"):
        monkeypatch.setattr(f"hfprobe.{module}.preferred_precision", lambda device: ("fp32", "no units"))
    with caplog.at_level("INFO", logger="hfprobe"):
        settle(small_config(dataset_folder, tmp_path, bf16=True, precision="bf16"))
    assert caplog.messages == [
        "Training in mixed precision: bf16.",
        "This CPU has no native bfloat16 support: training takes about 2.5 times as long as in float32.",
    ]


def test_a_probe_on_features_in_bfloat16_is_evaluated_in_float32(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    run = run_training(small_config(dataset_folder, tmp_path, **BACKBONE, feature_precision="bf16"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["model"]["feature_precision"] == "bf16"
    assert record["precision"] == "fp32"
    assert run.model.config.run["precisions"] == {"feature_precision": "bf16"}
    assert re.search(r"feature_precision.*bf16", (run.revision.path / "README.md").read_text())
    weights = load_file(run.revision.path / "model.safetensors")
    assert torch.bfloat16 not in {tensor.dtype for tensor in weights.values()}
    result = evaluate(str(run.revision.path), split="validation")
    correct = result.probabilities.argmax(1) == result.labels
    assert correct.mean() == run.result.metrics["accuracy"]
