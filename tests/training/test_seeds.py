import json
import re
import shutil
import sys

import pytest

from helpers.image_folders import write_images
from helpers.runs import run_record, small_config
from hfprobe.settings.run_config import make_run
from hfprobe.statistics.imbalance import Baseline
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate import cli as evaluate
from hfprobe.training.record import Pushed, RunRecord, RunResult
from hfprobe.training.seeds import summarize_seeds, train_seeds
from hfprobe.training.start import run_training


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


def test_the_summary_leads_with_macro_f1_if_classes_are_imbalanced(dataset_folder, tmp_path, monkeypatch):
    metrics = {"accuracy": 0.9, "macro_f1": 0.7, "balanced_accuracy": 0.8}
    result = RunResult(
        metrics, Baseline(0.9, 0.5, 0.5, answer="cat"), 100, [90, 10], epochs=1, best_epoch=1, seconds=1.0
    )
    runs = [small_config(dataset_folder, tmp_path, seed=seed) for seed in (1, 2)]
    record = run_record(runs[0], result=result, pushed=Pushed("hfprobe/small", "0" * 40, "../hub"))
    monkeypatch.setattr(RunRecord, "load", lambda folder: record)
    summary = summarize_seeds(runs, folder=tmp_path)
    assert summary["leading"] == ["macro_f1", "balanced_accuracy", "accuracy"]
    assert summary["validation_balanced_accuracy"]["values"] == [0.8, 0.8]


def evaluate_seeds(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["eval.py", "--report_dir", "report", *flags])
    evaluate.main()
    with open("report/seeds.json") as file:
        return json.load(file)


@pytest.mark.slow
def test_an_evaluation_of_seeds_takes_what_each_run_pushed_wherever_it_is_started(tmp_path, monkeypatch, capsys):
    home, other = tmp_path / "home", tmp_path / "other"
    write_images(home / "photos", count=20)
    write_images(other / "photos", count=20, names=["dog", "cat"])  # of the same name, with other labels
    monkeypatch.chdir(home)
    quick = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "num_train_epochs": 2, "learning_rate": 0.01}
    quick |= {"load_best_model_at_end": False}  # the best checkpoint, if there is one, is not what is pushed
    # Every place is relative to the folder in which the runs are trained.
    seeds = train_seeds(
        [
            make_run(dataset="photos", seed=seed, split_seed=1, output_dir=f"runs/{seed}", save_strategy=save, **quick)
            for seed, save in ((1, "epoch"), (2, "no"))
        ]
    )
    file = seeds.path.resolve()
    monkeypatch.chdir(other)
    found = evaluate_seeds(monkeypatch, "--seeds", str(file), "--split", "validation")
    assert re.search(r"\nCompare: .*compare(\.py)? report <another report folder>\n$", capsys.readouterr().out)
    assert found["accuracy"]["values"] == seeds.summary["validation_accuracy"]["values"]
    assert found["macro_f1"]["values"] == pytest.approx(seeds.summary["validation_macro_f1"]["values"])
    for seed in (1, 2):
        record = json.loads((home / "runs" / str(seed) / "run.json").read_text())
        metrics = json.loads((other / "report" / f"seed{seed}" / "metrics.json").read_text())
        provenance = metrics["provenance"]
        assert provenance["model_revision"] == record["pushed"]["revision"]
        assert provenance["dataset"] == provenance["run"]["dataset"] == str(home / "photos")
    home = home.rename(tmp_path / "moved")  # runs and hub; the photos are named
    again = ["--seeds", "../moved/runs/photos-cnn-fast-seeds.json", "--split", "validation"]
    found = evaluate_seeds(monkeypatch, *again, "--dataset", "../moved/photos")
    assert found["accuracy"]["values"] == seeds.summary["validation_accuracy"]["values"]
    for snapshot in home.glob("hub/*/snapshots/*"):
        if snapshot.name == record["pushed"]["revision"]:
            shutil.rmtree(snapshot)
    with pytest.raises(InputError, match=f"No revision '{record['pushed']['revision'][:12]}' of simple-cnn-photos."):
        evaluate_seeds(monkeypatch, *again)


def test_a_run_that_was_not_pushed_is_not_finished(dataset_folder, tmp_path, monkeypatch):
    runs = [small_config(dataset_folder, tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("hfprobe.training.publish.push_best", lambda *_, **__: sys.exit(9))
        with pytest.raises(SystemExit):
            train_seeds(runs)
    with pytest.raises(InputError, match=r"holds another run\. Continue it: --resume\."):
        train_seeds(runs)
    runs[0].training.resume = True
    assert train_seeds(runs).summary["models"][0]["hub_dir"] == "hub"
