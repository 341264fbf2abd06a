import json

from helpers.runs import small_config
from hfprobe.training.run_training import run_training
from hfprobe.training.seeds import summarize_seeds, train_seeds


def test_seeds_from_python_are_announced_in_turn_and_summarised(dataset_folder, tmp_path):
    runs = [
        small_config(dataset_folder, tmp_path, seed=seed, split_seed=1, output_dir=str(tmp_path / "runs" / f"{seed}"))
        for seed in (1, 2)
    ]
    run_training(runs[0])
    told = []
    seeds = train_seeds(runs, announce=lambda config, run: told.append((config.training.seed, run is not None)))
    assert told == [(1, False), (2, True)]
    assert seeds.path == tmp_path / "runs" / "small-cnn-fast-seeds.json"
    assert json.loads(seeds.path.read_text()) == seeds.summary
    assert seeds.summary["seeds"] == [1, 2]


def test_the_summary_leads_with_macro_f1_if_classes_are_unequal(dataset_folder, tmp_path, monkeypatch):
    metrics = {"accuracy": 0.9, "macro_f1": 0.7, "balanced_accuracy": 0.8}
    result = {"metrics": metrics, "images_per_class": [90, 10], "seconds": 1.0}
    record = {"result": result, "pushed": {"model": "hfprobe/small", "revision": "0" * 40, "hub_dir": "../hub"}}
    monkeypatch.setattr("hfprobe.training.seeds.read_record", lambda folder: record)
    runs = [small_config(dataset_folder, tmp_path, seed=seed) for seed in (1, 2)]
    summary = summarize_seeds(runs, folder=tmp_path)
    assert summary["leading"] == ["macro_f1", "balanced_accuracy", "accuracy"]
    assert summary["validation_balanced_accuracy"]["values"] == [0.8, 0.8]
    del result["images_per_class"], metrics["balanced_accuracy"]  # of an earlier version
    assert summarize_seeds(runs, folder=tmp_path)["leading"] == ["accuracy", "macro_f1"]
