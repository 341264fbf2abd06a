import json
import subprocess
import sys

import pytest
import torch

from helpers.runs import small_config
from hfprobe.data.splits import load_images
from hfprobe.system.errors import InputError
from hfprobe.training.run_training import run_training


def test_a_run_from_python_returns_the_model_that_it_pushed(dataset_folder, tmp_path):
    run = run_training(small_config(dataset_folder, tmp_path))
    assert run.output_dir == tmp_path / "run"
    assert json.loads((run.output_dir / "run.json").read_text())["result"]["metrics"] == run.result.metrics
    assert (run.revision.name, run.revision.is_main, run.uploaded) == ("hfprobe/simple-cnn-small", True, None)
    pushed = type(run.model).from_pretrained(run.revision.path)
    for mine, theirs in zip(run.model.state_dict().values(), pushed.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert run.processor.size == type(run.processor).from_pretrained(run.revision.path).size


def test_images_that_are_passed_are_not_loaded_and_give_the_same_result(dataset_folder, tmp_path, monkeypatch):
    config = small_config(dataset_folder, tmp_path / "passed")
    images = load_images(config.data, seed=config.split_seed)
    expected = run_training(small_config(dataset_folder, tmp_path / "loaded"))
    monkeypatch.setattr("hfprobe.data.splits.load_images", lambda *_, **__: pytest.fail("images were loaded"))
    assert run_training(config, images=images).result.metrics == expected.result.metrics


def test_a_process_other_than_the_main_one_trains_and_returns_nothing(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("hfprobe.training.publish.push_best", lambda *_, **__: pytest.fail("a model was pushed"))
    assert run_training(small_config(dataset_folder, tmp_path)) is None


def test_a_folder_that_holds_another_run_is_refused_before_any_slow_import(dataset_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds another run\. Continue it: --resume\."):
        run_training(small_config(dataset_folder, tmp_path))
    program = f"""
import sys
from hfprobe.config.run import make_run
config = make_run(dataset="any", output_dir={str(tmp_path / "run")!r}, use_cpu=True)
slow = {{"datasets", "sklearn", "timm", "transformers.trainer"}} - set(sys.modules)  # older transformers import sklearn
from hfprobe.system.errors import InputError
from hfprobe.training.run_training import run_training
from hfprobe.training.seeds import train_seeds
for start in (lambda: run_training(config), lambda: train_seeds([config])):
    try:
        start()
    except InputError:
        print(*slow & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "\n\n", done.stdout + done.stderr
