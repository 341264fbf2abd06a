"""A short training run, and the comparison of two runs' settings."""

import pickle
from dataclasses import asdict, fields
from functools import cache

import pytest
from transformers import set_seed

from helpers.images import CLASSES, load_splits
from hfprobe.models import build_model
from hfprobe.settings.run_config import NOT_REPEATED, make_run
from hfprobe.training.assembly import build_trainer
from hfprobe.training.fit import train
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
    for name in {field.name for field in fields(one.training)} - set(NOT_REPEATED):
        assert getattr(one.training, name) == getattr(other.training, name), name


def small_config(dataset_folder, folder, **values):
    quick = {"num_train_epochs": 1, "per_device_train_batch_size": 80, "use_cpu": True, "disable_tqdm": True}
    places = {"output_dir": str(folder / "run"), "hub_dir": str(folder / "hub"), "report_to": "none"}
    return make_run(dataset=str(dataset_folder), **quick | places | values)
