import json
import shutil

import pytest
from transformers import set_seed

from helpers.images import CLASSES
from helpers.runs import read_splits, small_config
from hfprobe.models import build_model
from hfprobe.settings.run_config import make_run
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.fit import train
from hfprobe.training.publish import push_best
from hfprobe.training.start import run_training


@pytest.mark.parametrize(
    ("values", "shown", "hidden"),
    [
        ({}, ["optimizer | muon", "muon_learning_rate | 0.08", "effective_batch_size | 40"], ["optim |", "penalty"]),
        ({"optimizer": "adam"}, ["optimizer | adam", "learning_rate | 0.002"], ["optim |", "muon_learning_rate"]),
        ({"optimizer": "optim"}, ["optim | adamw_torch"], ["muon_momentum"]),
        ({"class_weights": {"cat": 2}}, ["class_weights | {'airplane': 1.0, 'automobile': 1.0, "], []),
        ({"augment": False}, ["augment | False"], ["flips", "crop_padding"]),
        (
            {"model": "vit", "backbone": "test_byobnet", "backbone_weights": "random"},
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
            {"model": "vit", "backbone": "test_byobnet", "backbone_weights": "random", "head": "sgd"},
            ["optim | adamw_torch", "learning_rate | 0.002", "head | sgd"],
            ["penalty", "flips"],
        ),
    ],
)
def test_the_card_and_the_record_list_settings_that_have_an_effect(dataset_folder, tmp_path, values, shown, hidden):
    values = {"num_train_epochs": 1, "per_device_train_batch_size": 40, "disable_tqdm": True, "use_cpu": True} | values
    config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path / "run"), hub_dir=tmp_path / "hub", **values)
    set_seed(config.training.seed)
    model, processor = build_model(config.training.model, labels=CLASSES, options=config.model)
    splits = read_splits(config.data, seed=config.training.seed)
    config = settle(config, splits)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    result = train(trainer, config=config, splits=splits)
    card = (push_best(trainer, config=config, splits=splits, result=result).path / "README.md").read_text()
    table = card[card.index("| setting |") :]
    for row in shown:
        assert f"\n| {row}" in table
    for name in hidden:
        assert f"\n| {name}" not in table
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    flat = {name: value for group in record["config"].values() for name, value in group.items()}
    flat |= record | record["solution"]
    assert {row.split(" |")[0] for row in shown} <= flat.keys()
    assert not set(hidden) & flat.keys()


@pytest.mark.slow
def test_a_push_says_if_the_name_held_a_model_of_another_dataset(dataset_folder, tmp_path, caplog):
    found = []
    for place in (dataset_folder, dataset_folder, tmp_path / "elsewhere" / dataset_folder.name):
        if not place.exists():
            shutil.copytree(dataset_folder, place)
        config = small_config(place, tmp_path, overwrite=True)
        caplog.clear()
        found.append(run_training(config))
        said = [line for line in caplog.messages if "so far" in line]
        assert bool(said) == (place != dataset_folder)
    assert said == [
        f"The newest hfprobe/simple-cnn-small so far was trained on '{dataset_folder}'. It stays as "
        f"hfprobe/simple-cnn-small@{found[1].revision.commit[:12]}. To keep the models of two datasets apart, "
        "rename one of the folders, or pass --hub_dir."
    ]
    assert found[1].revision.path.is_dir()
