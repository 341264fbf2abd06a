"""A short training run, and the comparison of two runs' settings."""

import pickle
from dataclasses import asdict, fields
from functools import cache

import pytest
from transformers import set_seed

from helpers.images import CLASSES, load_splits
from hfprobe.models import build_model
from hfprobe.settings.run_config import RunConfig, make_run
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import to_json
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.fit import train
from hfprobe.training.record import Config, RunRecord
from hfprobe.training.trainer import ProbeTrainer


@cache
def _read_splits(pickled, seed):
    return load_splits(pickle.loads(pickled), seed=seed)


def read_splits(data, *, seed):
    """`load_splits`, once in a session for the same settings: reading the images takes as long as a short training."""
    return _read_splits(pickle.dumps(data), seed)


def small_run(dataset_folder, folder, *, diverges=False, **values):
    defaults = {"num_train_epochs": 2, "per_device_train_batch_size": 40, "disable_tqdm": True, "use_cpu": True}
    config = make_run(dataset=str(dataset_folder), output_dir=str(folder), **defaults | values)
    if diverges:  # beyond what a flag may say
        config.training.learning_rate = config.training.muon_learning_rate = 1e30
    set_seed(config.training.seed)
    model, processor = build_model("cnn", labels=CLASSES, options=config.model)
    splits = read_splits(config.data, seed=config.training.seed)
    config = settle(config, splits)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    return trainer, train(trainer, config=config, splits=splits)


def interrupted_run(dataset_folder, folder, **values):
    """A `small_run` that is stopped after its first checkpoint."""

    class Interrupted(Exception):
        pass

    save = ProbeTrainer._save_checkpoint

    def stop_after_saving(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProbeTrainer, "_save_checkpoint", stop_after_saving)
        with pytest.raises(Interrupted):
            small_run(dataset_folder, folder, **values)


def assert_same_run(one, other):
    repeated = {"split_seed": one.split_seed, "dataset": one.data.recorded_dataset}
    assert (asdict(one.data) | repeated) == asdict(other.data)
    assert one.model == other.model
    for name in {field.name for field in fields(one.training) if one.rows[field.name].repeat != "never"}:
        assert getattr(one.training, name) == getattr(other.training, name), name


def small_config(dataset_folder, folder, **values):
    quick = {"num_train_epochs": 1, "per_device_train_batch_size": 80, "use_cpu": True, "disable_tqdm": True}
    places = {"output_dir": str(folder / "run"), "hub_dir": str(folder / "hub"), "report_to": "none"}
    return make_run(dataset=str(dataset_folder), **quick | places | values)


def run_record(config: RunConfig, **values):
    """The record of a run that was not made."""
    return RunRecord(
        **{
            "model": config.training.model, "recipe": config.training.recipe, "seed": config.training.seed,
            "config": Config(**to_json(config.to_dict())), "class_names": CLASSES, "source": "a test", "division": "",
            "left_out": {}, "identical_images": [], "membership": {}, "data_fingerprint": "0" * 64,
            "class_weights": None, "images": {"train": 8, "validation": 4}, "parameters": 5,
            "trainable_parameters": 5, "network": {}, "precision": "fp32", "accelerator": {}, "processes": 1,
            "effective_batch_size": config.effective_batch_size, "git_sha": None, "versions": {},
            "hardware": Hardware("a processor", 2, 1), "device": "cpu",
        }
        | values
    )  # fmt: skip
