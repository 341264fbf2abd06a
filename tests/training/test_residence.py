import logging
import re
import signal
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback

from helpers.images import CLASSES
from helpers.models import PROBE
from helpers.processes import end_ranks, start_ranks
from helpers.runs import interrupted_run, read_splits, small_run
from hfprobe.data.pixels.resident import ResidentBatches
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.models import build_model
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError, MachineError
from hfprobe.training import assembly, residence
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.residence import check_residence, place_inputs

ROOT = Path(__file__).parents[2]
STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3, "save_steps": 3, "report_to": "none"}
GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def on_the_host(dataset_folder, tmp_path_factory):
    """A run of eight steps that reads its images from the host."""
    folder = tmp_path_factory.mktemp("host")
    trainer, result = small_run(dataset_folder, folder, dropout=0.5, **STEPS)
    assert type(trainer.train_dataset) is ImageBatches
    return load_file(folder / "checkpoint-8" / "model.safetensors"), result


def assert_equal_run(folder, result, expected):
    found = load_file(folder / "checkpoint-8" / "model.safetensors")
    weights, metrics = expected[0], expected[1].metrics
    assert {name: (found[name] - weights[name]).abs().max().item() for name in found} == dict.fromkeys(weights, 0)
    assert result.metrics == metrics


def test_the_weights_do_not_depend_on_where_the_images_are(dataset_folder, tmp_path, on_the_host):
    trainer, result = small_run(dataset_folder, tmp_path, dropout=0.5, resident="device", **STEPS)
    assert type(trainer.train_dataset) is type(trainer.eval_dataset) is ResidentBatches
    assert_equal_run(tmp_path, result, on_the_host)


@pytest.mark.parametrize(("before", "after"), [("host", "device"), ("device", "device"), ("device", "host")])
def test_a_run_that_is_resumed_in_mid_epoch_may_move_its_images(dataset_folder, tmp_path, on_the_host, before, after):
    interrupted_run(dataset_folder, tmp_path, dropout=0.5, resident=before, **STEPS)
    _, result = small_run(dataset_folder, tmp_path, dropout=0.5, resident=after, resume=True, **STEPS)
    assert_equal_run(tmp_path, result, on_the_host)


def make_inputs(dataset_folder, **values):
    config = make_run(dataset=str(dataset_folder), use_cpu=True, **values)
    splits = read_splits(config.data, seed=42)
    processor = build_model("cnn", labels=CLASSES, options=config.model)[1]
    return config, [ImageBatches(split, processor=processor) for split in (splits.train, splits.validation)]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"crop": "resized"},
            "--resident device: --crop resized interpolates, which devices round differently. Pass --crop shift, or "
            "leave out --resident.",
        ),
        (
            {"dataloader_num_workers": 1},
            "--resident device: loader workers cannot read the memory of a device. Pass --dataloader_num_workers 0, or "
            "leave out --resident.",
        ),
        (
            {"dataloader_pin_memory": True},
            "--resident device: --dataloader_pin_memory pins images of the host only. Pass --dataloader_pin_memory "
            "false, or leave out --resident.",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_done_on_a_device_is_refused_or_left_on_the_host(
    dataset_folder, monkeypatch, caplog, values, line
):
    # On a CPU, transformers turns the pinning off.
    pinned = {name: value for name, value in values.items() if name == "dataloader_pin_memory"}
    config, parts = make_inputs(dataset_folder, **values)
    assert check_residence(config.with_training(resident="device", **pinned)) == [line]
    assert check_residence(config.with_training(**pinned)) == []
    caplog.set_level(logging.INFO, "hfprobe")
    monkeypatch.setattr(residence, "free_memory", lambda device: 10**12)
    assert list(place_inputs(on_gpu(config.with_training(**pinned)), *parts)) == parts
    assert caplog.messages[-1] == f"Images stay on the host: {line.split(': ')[1].split('. Pass')[0]}."


def test_a_run_that_cannot_keep_them_there_ends_before_anything_is_written(dataset_folder, tmp_path):
    with pytest.raises(InputError, match=re.escape("--resident device: --crop resized interpolates")):
        small_run(dataset_folder, tmp_path, resident="device", crop="resized")
    assert list(tmp_path.iterdir()) == []


def test_a_student_reads_its_lessons_from_the_host():
    config = make_run(use_cpu=True, resident="device")
    config = replace(config, model=replace(config.model, teacher="linear-probe"))
    assert check_residence(config) == [
        "--resident device: images with the answers of a teacher are read from the host. Pass --teacher none, or leave "
        "out --resident."
    ]


def on_gpu(config):
    """The run, as a machine with a GPU would have it."""
    names = "resident", "dataloader_num_workers", "dataloader_pin_memory"
    values = {name: getattr(config.training, name) for name in names}
    return SimpleNamespace(
        data=config.data, model=config.model, training=SimpleNamespace(device=GPU, **values), ignored_settings={}
    )


def test_auto_takes_the_device_where_the_images_take_half_of_its_memory_or_less(dataset_folder, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "hfprobe")
    config, parts = make_inputs(dataset_folder)
    needed = sum(len(part) for part in parts) * (32 * 32 * 3 + 32)
    monkeypatch.setattr(residence, "ResidentBatches", lambda part, device: (part, device))
    sizes = "they take 0.00 GB, and 0.00 GB of cuda:0 are free"
    monkeypatch.setattr(residence, "free_memory", lambda device: 2 * needed)
    assert place_inputs(on_gpu(config), *parts) == tuple((part, GPU) for part in parts)
    monkeypatch.setattr(residence, "free_memory", lambda device: 2 * needed - 1)
    assert place_inputs(on_gpu(config), *parts) == tuple(parts)
    assert caplog.messages[-2:] == [f"Images are kept on the device: {sizes}.", f"Images stay on the host: {sizes}."]
    monkeypatch.setattr(residence, "free_memory", lambda device: needed - 1)
    with pytest.raises(MachineError, match=r"do not fit, they take 0\.00 GB, .* Pass --resident host or a smaller"):
        place_inputs(on_gpu(config.with_training(resident="device")), *parts)


def test_auto_is_the_host_on_a_cpu_and_says_nothing(dataset_folder, caplog):
    caplog.set_level(logging.INFO, "hfprobe")
    config, parts = make_inputs(dataset_folder)
    assert list(place_inputs(config, *parts)) == parts
    assert not [line for line in caplog.messages if "Images" in line]


def test_a_head_on_cached_features_has_no_images(dataset_folder, tmp_path, caplog):
    values = PROBE | {"head": "sgd", "resident": "device"}
    config = make_run(model="probe", dataset=str(dataset_folder), output_dir=str(tmp_path), use_cpu=True, **values)
    assert "--resident has no effect: cached features are read instead of images." in caplog.messages
    model, processor = build_model("probe", labels=CLASSES, options=config.model)
    splits = read_splits(config.data, seed=42)
    config = settle(config, splits)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    assert not isinstance(trainer.train_dataset, ImageBatches)


class Waits(TorchDispatchMode):
    """Counts, per training step, the operators that would wait for a GPU, and all-reduces.

    Not counted: the number of a step, which torch's optimizers keep in main memory.
    """

    def __init__(self):
        super().__init__()
        self.found = []  # (step, operator)
        self.step = None  # None: no step, but the loader, a log entry, an evaluation

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        waits = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "all_reduce", "allreduce_", "unique")
        in_optimizer = any("torch/optim/" in frame.filename for frame in traceback.extract_stack())
        if self.step is not None and name.split("::")[1].startswith(waits) and not in_optimizer:
            self.found.append((self.step, name))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"class_weights": "balanced"},
        {"recipe": "reference", "max_grad_norm": 1.0},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_no_step_waits_for_the_device(dataset_folder, tmp_path, monkeypatch, values):
    """From the first batch of an epoch to its log entry, the loader included."""
    waits, step = Waits(), Trainer.training_step

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            waits.step = state.global_step

        def on_step_end(self, args, state, control, **_):
            waits.step = None if control.should_log or control.should_evaluate else waits.step

        def on_epoch_end(self, args, state, control, **_):
            waits.step = None

    build = assembly.assemble_trainer

    def assemble(**parts):
        trainer = build(**parts)
        trainer.add_callback(Watch())
        return trainer

    steps = []
    monkeypatch.setattr(assembly, "assemble_trainer", assemble)
    monkeypatch.setattr(Trainer, "training_step", lambda self, *a, **k: steps.append(waits.step) or step(self, *a, **k))
    with waits:
        small_run(dataset_folder, tmp_path, resident="device", report_to="none", **values)
    assert len(steps) == 8
    assert None not in steps
    assert waits.found == []


def test_the_search_for_nan_of_transformers_would_wait_in_each_step(dataset_folder, tmp_path, monkeypatch):
    """That the count above counts."""
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        test_no_step_waits_for_the_device(dataset_folder, tmp_path, monkeypatch, {"logging_nan_inf_filter": True})


# Rank 1 gets a signal after its step `STRIKE`.
SCRIPT = f"""
import os, runpy, signal, sys
from hfprobe.training.trainer import ProbeTrainer
step, calls = ProbeTrainer.training_step, []
def training_step(self, *args, **kwargs):
    calls.append(None)
    if os.environ["RANK"] == "1" and len(calls) == int(os.environ.get("STRIKE", -1)):
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *args, **kwargs)
ProbeTrainer.training_step = training_step
runpy.run_path({str(ROOT / "scripts" / "train.py")!r}, run_name="__main__")
"""


@pytest.mark.faults
def test_two_processes_train_the_same_weights_and_a_signal_to_one_of_them_stops_both(dataset_folder, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    flags = ["--dataset", dataset_folder, "--use_cpu", "--batch_size", "10", "--epochs", "3", "--precision", "fp32"]

    def run(name, *more, **values):
        command = [tmp_path / "train.py", *flags, "--output_dir", name, *more]
        return end_ranks(start_ranks(2, *command, cwd=tmp_path, HF_DATASETS_CACHE=tmp_path / "cache", **values))

    for name in ("host", "device"):
        for code, _, log in run(name, "--resident", name):
            assert code == 0, log
    (first, _, log), (second, _, _) = run("stopped", "--resident", "device", STRIKE="11")
    assert first == second == 128 + signal.SIGTERM, log
    assert re.search(r"Stopped by SIGTERM at step (1[1-6]) of 24", log), log
    for code, _, log in run("stopped", "--resident", "device", "--resume"):
        assert code == 0, log
    expected = load_file(tmp_path / "host" / "checkpoint-24" / "model.safetensors")
    for name in ("device", "stopped"):
        found = load_file(tmp_path / name / "checkpoint-24" / "model.safetensors")
        assert {key: (found[key] - expected[key]).abs().max().item() for key in found} == dict.fromkeys(expected, 0)
