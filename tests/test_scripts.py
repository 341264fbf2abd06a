"""The commands as a user types them."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from helpers.image_folders import write_images
from helpers.models import save_model
from helpers.results import make_result, with_provenance

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))

pytestmark = pytest.mark.usefixtures("narrow_network")


def run(*command, cwd=ROOT):
    environment = os.environ | {"HF_DATASETS_CACHE": str(cwd / "cache")} if cwd != ROOT else os.environ
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


def test_each_script_is_a_door_to_the_command_of_the_same_name():
    from hfprobe.cli.main import find_commands

    doors = {"profile": "profile_models.py"}
    assert sorted(doors.get(name, f"{name.replace('-', '_')}.py") for name in find_commands()) == SCRIPTS
    for name, package in find_commands().items():
        path = ROOT / "scripts" / doors.get(name, f"{name.replace('-', '_')}.py")
        assert len(path.read_text().splitlines()) <= 10
        script, module = runpy.run_path(str(path)), import_module(f"{package}.cli")
        assert script["main"] is module.main
        assert script["__doc__"] == module.__doc__.splitlines()[0] == import_module(package).__doc__


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, succeeds):
    assert succeeds(script, "--help").startswith(("usage: ", "Usage: "))


def test_a_script_runs_from_another_folder(tmp_path):
    done = run(ROOT / "scripts" / "compare.py", "--help", cwd=tmp_path)  # the quickest of them
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_train_then_the_command_it_prints_then_the_same_again(succeeds, fails, dataset_folder, tmp_path):
    said = succeeds("train.py", "--model", "cnn", "--dataset", dataset_folder, "--epochs", 1, "--use_cpu")
    assert "Validation accuracy " in said
    assert "(n = 40)" in said
    command = next(line.removeprefix("Report:").strip() for line in said.splitlines() if "Report:" in line)
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", str(ROOT / "scripts" / "eval.py"))
    assert "(n = 60)" in succeeds("eval.py", *arguments)
    names = {path.name for path in (tmp_path / "reports" / "cnn-small").iterdir()}
    assert names == {
        "metrics.json", "predictions.parquet", "mistakes.parquet", "per_class_metrics.csv",
        "classification_report.txt", "confusion_matrix.png", "report.html",
    }  # fmt: skip
    assert fails("train.py", "--model", "cnn", "--dataset", dataset_folder) == (
        "The output folder 'runs/small-cnn-fast-seed42' holds another run. Continue it: --resume. "
        "Delete it: --overwrite. Keep it: --output_dir with another name."
    )


def test_seeds_are_trained_in_turn_and_finished_ones_skipped(fails, dataset_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def train(seeds, *flags):
        command = ["train.py", "--seeds", seeds, "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", *flags]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        assert stopped.value.code == 0
        return capsys.readouterr().out

    train(2)
    # A finished seed with other settings is no part of the same mean, and nothing is trained beside it.
    others = ["--seeds", 3, "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", "--lr", 0.1]
    for flags in ([], ["--resume"]):
        message = fails("train.py", *others, *flags)
        assert message.startswith(
            "The run in 'runs/small-cnn-fast-seed42' cannot be resumed with other settings: --learning_rate/--lr was "
            "0.002, is 0.1."
        )
    (tmp_path / "runs" / "small-cnn-fast-seed44").mkdir()  # a run that was killed before it wrote anything
    said = train(3, "--resume")
    assert said.count("finished before") == 2
    summary = json.loads((tmp_path / "runs" / "small-cnn-fast-seeds.json").read_text())
    assert (summary["n"], summary["seeds"]) == (3, [42, 43, 44])
    records = [json.loads((tmp_path / "runs" / folder / "run.json").read_text()) for folder in summary["folders"]]
    values = [record["result"]["metrics"]["accuracy"] for record in records]
    assert summary["validation_accuracy"]["values"] == values
    assert summary["validation_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert summary["validation_accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert summary["leading"] == ["accuracy", "macro_f1"]
    assert f"Validation accuracy {np.mean(values):.2%} +/- {np.std(values, ddof=1):.2%}, macro-F1 " in said
    python, script, *arguments = shlex.split(said.split("On test: ")[1].splitlines()[0])
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--split", "validation"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert (python, stopped.value.code) == ("python", 0)
    # The best epoch of each run, on the images that chose it.
    assert json.loads((tmp_path / "reports" / "seeds-small" / "seeds.json").read_text())["accuracy"]["values"] == values
    assert (tmp_path / "reports" / "seeds-small" / "seed44" / "report.html").is_file()
    assert len({record["data_fingerprint"] for record in records}) == 1


def test_resume_with_reordered_classes_writes_nothing(succeeds, fails, dataset_folder, tmp_path):
    command = ["train.py", "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", "--output_dir", tmp_path / "run"]
    assert succeeds(*command)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert fails(*command, "--resume", "--classes", "dog", "cat", "bird", "automobile", "airplane") == (
        f"The run in '{tmp_path}/run' cannot be resumed with other settings: --classes was airplane automobile bird "
        "cat dog, is dog cat bird automobile airplane. Pass what the run was started with, or start another one: "
        "--output_dir with another name."
    )
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def printed_command(said, name):
    """The words of the command that a script prints after `name`."""
    return shlex.split(next(line.split(name)[1] for line in said.splitlines() if name in line))


def test_printed_commands_can_be_pasted_where_paths_have_spaces(succeeds, fails, dataset_folder, tmp_path):
    places = ["--output_dir", "my runs/a", "--hub_dir", "my hub"]
    said = succeeds("train.py", "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", *places)
    assert printed_command(said, "curves: ")[:3] == ["tensorboard", "--logdir", "my runs/a)"]
    command = printed_command(said, "Report: ")
    script = str(ROOT / "scripts" / "eval.py")  # the command was typed in another folder
    assert command[:6] == ["python", script, "--model", "hfprobe/simple-cnn-small", "--hub_dir", "my hub"]
    said = succeeds("eval.py", *command[2:-1], "it's a [report]")
    assert printed_command(said, "Compare: ")[:3] == ["python", str(ROOT / "scripts" / "compare.py"), "it's a [report]"]
    remedy = fails("eval.py", "--report_only", "--report_dir", "no report").split("Make it: ")[1]
    assert shlex.split(remedy)[-2:] == ["--report_dir", "no report"]
    make_result(seed=1).save(tmp_path / "b")
    make_result(seed=2).save(tmp_path / "c")
    remedy = fails("compare.py", "b", "c", "--profile", "no profile").split("Make it: ")[1]
    assert shlex.split(remedy)[-2:] == ["--report_dir", "no profile"]


def test_a_run_is_not_deleted_for_one_that_cannot_start(fails, dataset_folder, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    message = fails(
        "train.py", "--model", "vit", "--backbone", "test_byobnet", "--backbone_weights", "none.pth",
        "--dataset", dataset_folder, "--output_dir", "old", "--overwrite", "--use_cpu",
    )  # fmt: skip
    assert message.startswith("--backbone_weights 'none.pth' is not a file")
    assert (tmp_path / "old" / "run.json").exists()


def test_compare(succeeds, fails, tmp_path):
    for seed, name in enumerate(("a", "b")):
        make_result(seed=seed).save(tmp_path / name)
    said = succeeds("compare.py", "a", "b", "--report_dir", "out")
    verdict = json.loads((tmp_path / "out" / "comparison.json").read_text())["sentences"]
    assert verdict[0] in said
    assert "Page: out/comparison.html" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json", "comparison.md", "comparison.html",
    }  # fmt: skip
    assert fails("compare.py", tmp_path / "a").startswith("1 report folder cannot be compared; allowed: two or more")


def test_no_report_is_written_into_a_dataset(fails, tmp_path):
    photos = write_images(tmp_path / "photos", count=1)
    model = save_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["run"]["dataset"] = str(photos)
    (model / "config.json").write_text(json.dumps(config))
    other = {"run": {"dataset": "uoft-cs/cifar10"}, "dataset": str(photos)}  # evaluated on it
    trained = {"run": {"dataset": str(photos)}}
    for seed, (name, known) in enumerate({"a": trained, "b": other, "photos/c": other}.items()):
        with_provenance(make_result(seed=seed), **known).save(tmp_path / name)
    make_result(seed=3).save(tmp_path / "d")
    place = ["--report_dir", "photos/c"]
    for dataset, command in (
        (photos, ["eval.py", "--model", "model"]),
        ("photos/cat", ["eval.py", "--model", "model", "--dataset", "photos/cat", "--report_dir", "photos/cat/r"]),
        (photos, ["eval.py", "--report_only"]),
        (photos, ["profile_models.py", "model"]),
        (photos, ["compare.py", "a", "d"]),
        (photos, ["compare.py", "d", "b"]),
        ("photos", ["label_efficiency.py", "--dataset", "photos"]),
        ("photos", ["train.py", "--dataset", "photos", "--output_dir", "photos/c"]),
        ("photos", ["train.py", "--dataset", "photos", "--output_dir", "photos/c", "--seeds", 2]),
        ("photos", ["train.py", "--dataset", "photos", "--hub_dir", "photos/c"]),
    ):
        message = fails(*command, *([] if "train.py" in command or "photos/cat/r" in command else place))
        assert f"' lies inside the dataset '{dataset}'. Results would be mixed with other files: pass --" in message


@pytest.mark.parametrize(
    ("model", "flags"), [("cnn", []), ("vit", ["--backbone", "test_byobnet", "--backbone_weights", "random"])]
)
def test_sanity_check(model, flags, succeeds, dataset_folder):
    said = succeeds("sanity_check.py", "--model", model, "--dataset", dataset_folder, *flags)
    assert f"{model} overfitted 32 images" in said


def test_sanity_check_that_fails(fails, dataset_folder):
    message = fails("sanity_check.py", "--dataset", dataset_folder, "--epochs", 1, "--lr", "1e-9", code=1)
    assert message.startswith("cnn did not overfit 32 images: ")
