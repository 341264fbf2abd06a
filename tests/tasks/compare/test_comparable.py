import dataclasses
import re

import pytest

import hfprobe
from helpers.results import in_runs, planted, with_provenance
from hfprobe.system.errors import InputError
from hfprobe.tasks.compare.cli import main
from hfprobe.tasks.compare.comparable import load_comparable
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.evaluate.result import EvaluatedSeeds


def save_seeds(folder, runs):
    """Evaluations of runs as `hfprobe eval --seeds` writes them."""
    found = {f"seed{run.provenance.run['seed']}": run for run in runs}
    for name, run in found.items():
        run.save(folder / name)
    EvaluatedSeeds.of(found).save(folder)
    return folder


@pytest.fixture
def seeds(tmp_path):
    return save_seeds(tmp_path / "seeds", in_runs(planted(0.8), -5, 0, 5))


@pytest.fixture
def other(tmp_path):
    with_provenance(planted(0.9, seed=1), model="hfprobe/other").save(tmp_path / "other")
    return tmp_path / "other"


def test_the_folder_of_an_evaluation_of_seeds_is_one_model_with_all_its_runs(seeds, other):
    found = load_comparable([seeds, other])
    assert {name: len(runs) for name, runs in found.items()} == {"simple-cnn": 3, "other": 1}
    assert [run.provenance.run["seed"] for run in found["simple-cnn"]] == [42, 43, 44]


def test_the_command_compares_all_runs_and_python_does_the_same(seeds, other, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["compare", str(seeds), str(other), "--report_dir", "out"])
    main()
    assert "on average over 3 seeds of simple-cnn" in capsys.readouterr().out
    runs = in_runs(planted(0.8), -5, 0, 5)
    again = hfprobe.compare(runs, with_provenance(planted(0.9, seed=1), model="hfprobe/other"))
    assert Comparison.load("out").pairs == again.pairs


def test_an_evaluation_of_seeds_without_one_of_its_runs_is_refused(seeds, other):
    (seeds / "seed43" / "metrics.json").unlink()
    message = f"'{seeds}' lacks the run 'seed43', which its seeds.json has. Evaluate all runs again: "
    with pytest.raises(InputError, match=re.escape(message)):
        load_comparable([seeds, other])


def test_runs_of_other_images_and_classes_are_refused(tmp_path, other):
    one, second = in_runs(planted(0.8), 0, 5)
    moved = with_provenance(second, split_fingerprint="abc")
    folder = save_seeds(tmp_path / "moved", [one, moved])
    message = f"'{folder}/seed43' and '{folder}/seed42' cannot be compared, their images differ: "
    with pytest.raises(InputError, match=re.escape(message)):
        load_comparable([folder, other])
    renamed = dataclasses.replace(second, class_names=["cat", "dog", "cow"])
    with pytest.raises(InputError, match="their classes differ: cat, dog, cow and cat, dog, owl"):
        load_comparable([save_seeds(tmp_path / "renamed", [one, renamed]), other])


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"run": {"recipe": "best"}}, "recipes differ: best and None"),
        ({"run": {"data_fingerprint": "abc"}}, "images of training differ: abc and None"),
        ({"run": {"split_seed": 7, "dataset": "photos"}}, "images of training differ: photos and None"),
        ({"facts": {"backbone": "vit"}}, "backbones differ: vit and None"),
        ({"test_time_augmentation": "mirror image"}, "averaged images (--tta) differ: mirror image and None"),
    ],
)
def test_runs_of_different_models_are_refused(tmp_path, other, values, what):
    one, second = in_runs(planted(0.8), 0, 5)
    folder = save_seeds(tmp_path / "mixed", [one, with_provenance(second, **values)])
    message = f"'{folder}/seed43' and '{folder}/seed42' are not runs of one model, their {what}. Pass different models"
    with pytest.raises(InputError, match=re.escape(message)):
        load_comparable([folder, other])


def test_runs_with_splits_of_their_own_are_runs_of_one_model(tmp_path, other):
    runs = [
        with_provenance(run, run={"seed": seed, "split_seed": seed, "data_fingerprint": f"images of split {seed}"})
        for seed, run in zip((42, 43), in_runs(planted(0.8), 0, 5), strict=True)
    ]
    assert len(load_comparable([save_seeds(tmp_path / "varied", runs), other])["simple-cnn"]) == 2
    solved = with_provenance(planted(0.9, seed=1), model="other", run={"seconds": 1.0})
    compared = hfprobe.compare(runs, solved)
    assert compared.models["simple-cnn"].split_seeds == [42, 43]
    said = "for other seeds (of simple-cnn: also other splits into training and validation images)"
    assert any(said in sentence for sentence in compared.sentences)


def test_the_same_run_twice_is_refused(seeds, other):
    message = f"'{seeds}/seed42' is one of the runs of another report folder. Pass each run once."
    with pytest.raises(InputError, match=re.escape(message)):
        load_comparable([seeds, seeds / "seed42"])
    (one,) = in_runs(planted(0.8), 0)
    message = "'simple-cnn, run 1' and 'simple-cnn, run 2' are evaluations of the same run. Pass each run once."
    with pytest.raises(InputError, match=re.escape(message)):
        hfprobe.compare([one, one], with_provenance(planted(0.9), model="other"))


def test_an_empty_list_of_runs_is_refused():
    with pytest.raises(InputError, match="A list of evaluations is empty"):
        hfprobe.compare([], planted(0.8))
