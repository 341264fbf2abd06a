import json

from helpers.runs import small_config
from hfprobe.training.run_training import run_training
from hfprobe.training.seeds import train_seeds


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
