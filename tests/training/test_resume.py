import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import set_seed

from helpers.images import CLASSES, make_dataset
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model
from hfprobe.models.simple_cnn.modeling import CIFAR10_MEAN
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.system.files import locked
from hfprobe.training import checkpoints
from hfprobe.training import resume as run_folder
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.fit import train
from hfprobe.training.record import RunRecord
from hfprobe.training.resume import check_output_dir, claimed, find_differences, is_finished
from hfprobe.training.trainer import ProbeTrainer

SMALL = {"num_train_epochs": 1, "per_device_train_batch_size": 40, "disable_tqdm": True, "use_cpu": True}


def run(folder, dataset, **values):
    """What scripts/train.py does up to the push."""
    config = make_run(output_dir=str(folder), dataset=str(dataset), **SMALL | values)
    check_output_dir(config)
    images = load_images(config.data, seed=config.split_seed)
    config = config.for_images(images)
    set_seed(config.training.seed)
    model, processor = build_model(config.training.model, labels=images.class_names, options=config.model)
    splits = images.decode("train", "validation", processor=processor)
    with claimed(config.training):
        config = settle(config, splits)
        trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
        return train(trainer, config=config, splits=splits)


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(dataset_folder, tmp_path_factory):
    """A finished run, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder, dataset_folder)
    return folder


@pytest.mark.parametrize(
    ("values", "difference"),
    [
        (
            {"classes": ["dog", "cat", "bird", "automobile", "airplane"]},
            "--classes was airplane automobile bird cat dog, is dog cat bird automobile airplane",
        ),
        ({"classes": ["airplane", "cat"]}, "--classes was airplane automobile bird cat dog, is airplane cat"),
        (
            {"per_device_train_batch_size": 20},
            "--per_device_train_batch_size/--batch_size was 40, is 20; the effective batch size was 40, is 20",
        ),
        (
            {"gradient_accumulation_steps": 2},
            "--gradient_accumulation_steps was 1, is 2; the effective batch size was 40, is 80",
        ),
        ({"model": "vit"}, "--model was cnn, is probe"),
        ({"dropout": 0.3}, "--dropout was 0.2, is 0.3"),
        ({"learning_rate": 0.1}, "--learning_rate/--lr was 0.002, is 0.1"),
        ({"lr_scale": 2}, "--lr_scale was 1.0, is 2.0"),
        ({"seed": 1}, "--split_seed was 42, is 1; --seed was 42, is 1"),
        ({"split_seed": 1}, "--split_seed was 42, is 1"),
        ({"max_train_samples": 50}, "--max_train_samples was none, is 50"),
        ({"augment": False}, "--augment was true, is false"),
        ({"optimizer": "adam"}, "--optimizer was muon, is adam"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1}},
            '--lr_scheduler_kwargs was none, is {"num_cycles": 1}; --lr_scheduler_type was linear, is cosine',
        ),
        ({"patience": 3}, "--patience was 20, is 3"),
        ({"num_train_epochs": 0.5}, "--num_train_epochs/--epochs was 1, is 0.5 (it may only rise)"),
        ({"recipe": "best", "num_train_epochs": 1}, "--patience was 20, is 60; --recipe was fast, is best"),
        ({"full_determinism": True}, "--full_determinism/--deterministic was false, is true"),
    ],
)
def test_resume_with_another_setting_is_refused_before_an_image_is_loaded(
    finished, dataset_folder, monkeypatch, values, difference
):
    before = contents(finished)
    monkeypatch.setitem(globals(), "load_images", None)
    monkeypatch.setitem(globals(), "build_model", None)
    with pytest.raises(InputError) as error:
        run(finished, dataset_folder, resume=True, **values)
    assert str(error.value) == (
        f"The run in '{finished}' cannot be resumed with other settings: {difference}. Pass what the run was started "
        "with, or start another one: --output_dir with another name."
    )
    assert contents(finished) == before


def test_another_number_of_processes_is_refused(finished, dataset_folder, monkeypatch):
    monkeypatch.setattr(RunArguments, "world_size", 2)
    config = make_run(output_dir=str(finished), dataset=str(dataset_folder), resume=True, **SMALL)
    expected = "the number of processes was 1, is 2; the effective batch size was 40, is 80. Pass what"
    with pytest.raises(InputError, match=re.escape(expected)):
        check_output_dir(config)


def test_every_difference_is_named_at_once(finished, dataset_folder):
    expected = "settings: --crop_shift was 4, is 2; --head_scale was 0.2, is 0.5; --weight_decay was 0.05, is 0.1. Pass"
    with pytest.raises(InputError, match=re.escape(expected)):
        run(finished, dataset_folder, resume=True, crop_shift=2, head_scale=0.5, weight_decay=0.1)


def test_a_resumed_run_keeps_the_statistics_that_its_checkpoint_was_trained_with(finished, dataset_folder, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    checkpoint = next(folder.glob("checkpoint-*"))
    processor = json.loads((checkpoint / "preprocessor_config.json").read_text())
    assert processor["image_mean"] != CIFAR10_MEAN
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": CIFAR10_MEAN}))
    (checkpoint / checkpoints.MANIFEST_FILE).unlink()
    shutil.move(checkpoint, tmp_path / "staged")
    checkpoints.seal_checkpoint(tmp_path / "staged", checkpoint)
    run(folder, dataset_folder, resume=True, num_train_epochs=2)
    newest = json.loads((folder / "checkpoint-8" / "preprocessor_config.json").read_text())
    assert newest["image_mean"] == CIFAR10_MEAN
    assert newest["image_std"] == processor["image_std"]


def test_other_images_under_the_same_name_are_refused_and_nothing_is_written(finished, dataset_folder, tmp_path):
    make_dataset(train=100, test=10).save_to_disk(tmp_path / "other")
    before = contents(finished)
    with pytest.raises(InputError, match=r"other settings: the images' fingerprint was \w{64}, is \w{64}\. Pass what"):
        run(finished, tmp_path / "other", resume=True)
    assert contents(finished) == before


def test_a_run_and_its_images_may_have_been_moved(finished, dataset_folder, tmp_path):
    shutil.copytree(finished, tmp_path / "moved")
    shutil.copytree(dataset_folder, tmp_path / "images")
    expected = json.loads((finished / "run.json").read_text())["result"]
    result = run(tmp_path / "moved", tmp_path / "images", resume=True)
    assert result.metrics == expected["metrics"]


def test_settings_that_may_differ_are_known_and_everything_else_is_compared(finished, dataset_folder):
    config = make_run(
        output_dir=str(finished), dataset=str(dataset_folder), image_size=32, crop="shift", precision="fp32", **SMALL
    )
    compared = {name for name, row in config.rows.items() if not row.may_differ}
    record = RunRecord.load(finished)
    for group, values in vars(record.config).items():
        for name in values.keys() & compared - {"classes"}:  # the record has their names elsewhere
            changed = replace(record, config=replace(record.config, **{group: values | {name: "other"}}))
            assert len(find_differences(changed, config, finished)) == 1, name


def test_flags_that_do_not_change_the_result_are_allowed(finished, dataset_folder):
    free = {
        "dataloader_num_workers": 2, "dataloader_prefetch_factor": 2, "logging_steps": 7, "logging_strategy": "steps",
        "report_to": "none", "histogram_epochs": 3, "profile": True, "save_total_limit": 5, "hub_dir": "elsewhere",
        "disable_tqdm": False, "num_train_epochs": 3,
    }  # fmt: skip
    check_output_dir(
        make_run(**{"output_dir": str(finished), "dataset": str(dataset_folder), "resume": True} | SMALL | free)
    )


def test_all_classes_may_be_named_when_a_run_is_resumed_in_their_order(finished, dataset_folder):
    settings = SMALL | {"output_dir": str(finished), "dataset": str(dataset_folder), "resume": True}
    check_output_dir(make_run(**settings, classes=CLASSES))
    with pytest.raises(InputError, match="classes was airplane automobile bird cat dog, is dog cat bird automobile"):
        check_output_dir(make_run(**settings, classes=CLASSES[::-1]))


def test_a_setting_without_effect_is_not_compared(finished, dataset_folder):
    settings = {"output_dir": str(finished), "dataset": str(dataset_folder), "resume": True}
    check_output_dir(make_run(**settings | SMALL, adam_beta1=0.9, save_steps=7, hub_model_id="x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged: Expecting property name enclosed in double quotes"),
        ("{}", "is damaged: 'model' is missing. Start the run again with --overwrite, or keep it and pass another"),
        ("[]", "is damaged: it is []; allowed: a JSON object. Start the run again"),
        (
            None,
            "holds no record of the run (run.json: No such file or directory). Start the run again with",
        ),
    ],
)
def test_a_record_that_cannot_be_compared_is_one_line(tmp_path, content, message):
    (tmp_path / "checkpoint-4").mkdir()
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        check_output_dir(make_run(output_dir=str(tmp_path), resume=True))


def test_a_record_without_all_that_is_compared_is_refused(finished, dataset_folder, tmp_path):
    record = json.loads((finished / "run.json").read_text())
    del record["effective_batch_size"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    message = f"The record of the run '{tmp_path}/run.json' is damaged: 'effective_batch_size' is missing. Start"
    with pytest.raises(InputError, match=re.escape(message)):
        check_output_dir(make_run(output_dir=str(tmp_path), dataset=str(dataset_folder), resume=True, **SMALL))


def test_other_versions_and_hardware_are_a_warning(finished, dataset_folder, tmp_path, monkeypatch, caplog):
    shutil.copytree(finished, tmp_path / "copy")
    known = run_folder.provenance.versions()
    monkeypatch.setattr(run_folder.provenance, "versions", lambda: known | {"torch": "9.9"})
    monkeypatch.setattr(run_folder.provenance, "git_sha", lambda: "f00")
    run(tmp_path / "copy", dataset_folder, resume=True)
    expected = f"may differ from those of an uninterrupted run: torch was {known['torch']}, is 9.9; commit of hfprobe"
    assert f"The last bits of the result {expected} was " in caplog.text


def test_more_epochs_continue_the_run_and_the_log_says_what_becomes_of_the_schedule(
    finished, dataset_folder, tmp_path, caplog, monkeypatch
):
    caplog.set_level("INFO", "hfprobe")
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = json.loads((folder / "run.json").read_text())
    seen = []
    original = ProbeTrainer.training_step

    def look(self, *args, **kwargs):
        seen.append(json.loads((folder / "run.json").read_text()))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ProbeTrainer, "training_step", look)
    result = run(folder, dataset_folder, resume=True, num_train_epochs=2)
    assert (
        "The run is continued to 2 epochs instead of 1. The linear schedule is that of 2 epochs from here on: the "
        "learning rate jumps to its value there, so the result is neither that of 1 nor that of 2 epochs from the "
        "start."
    ) in caplog.text
    # The result of one epoch stands until there is that of two.
    assert len(seen) == 4
    assert all(record == before for record in seen)
    after = json.loads((folder / "run.json").read_text())
    assert (result.epochs, after["result"]["epochs"], after["config"]["training"]["num_train_epochs"]) == (2, 2, 2)
    with pytest.raises(InputError, match=re.escape("--num_train_epochs/--epochs was 2, is 1 (it may only rise)")):
        run(folder, dataset_folder, resume=True)


def test_epochs_planned_by_a_longer_attempt_count_too(finished, dataset_folder, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    state = next((tmp_path / "copy").glob("checkpoint-*/trainer_state.json"))
    state.write_text(json.dumps(json.loads(state.read_text()) | {"num_train_epochs": 5}))
    with pytest.raises(InputError, match=re.escape("--num_train_epochs/--epochs was 5, is 1 (it may only rise)")):
        run(tmp_path / "copy", dataset_folder, resume=True)


def test_a_run_of_a_part_of_an_epoch_is_recognised_though_checkpoints_round_it_up(finished, dataset_folder, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    record = json.loads((tmp_path / "copy" / "run.json").read_text())
    record["config"]["training"]["num_train_epochs"] = 0.6
    (tmp_path / "copy" / "run.json").write_text(json.dumps(record))
    settings = {"output_dir": str(tmp_path / "copy"), "dataset": str(dataset_folder)} | SMALL
    assert is_finished(make_run(**settings | {"num_train_epochs": 0.6}))
    with pytest.raises(InputError, match=re.escape("was 0.6, is 0.5 (it may only rise)")):
        is_finished(make_run(**settings | {"num_train_epochs": 0.5}))


def test_a_run_is_finished_for_its_own_settings_only(finished, dataset_folder, tmp_path):
    settings = {"output_dir": str(finished), "dataset": str(dataset_folder)} | SMALL
    assert is_finished(make_run(**settings))
    assert not is_finished(make_run(**settings | {"num_train_epochs": 2}))
    assert not is_finished(make_run(**settings | {"output_dir": str(tmp_path)}))
    with pytest.raises(InputError, match=re.escape("--learning_rate/--lr was 0.002, is 0.5")):
        is_finished(make_run(**settings, learning_rate=0.5))


def test_output_folder_with_another_run(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    expected = (
        f"The output folder '{tmp_path}' holds another run. Continue it: --resume. Delete it: --overwrite. "
        "Keep it: --output_dir with another name."
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        check_output_dir(make_run(output_dir=str(tmp_path)))
    check_output_dir(make_run(output_dir=str(tmp_path), overwrite=True))
    assert (tmp_path / "run.json").exists()
    with claimed(make_run(output_dir=str(tmp_path), resume=True).training):
        assert (tmp_path / "run.json").exists()
    with claimed(make_run(output_dir=str(tmp_path), overwrite=True).training):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_holds_no_run_keeps_its_files(tmp_path):
    (tmp_path / "notes.txt").touch()
    with claimed(make_run(output_dir=str(tmp_path), overwrite=True).training):
        assert (tmp_path / "notes.txt").exists()


def test_nothing_to_resume(tmp_path):
    expected = f"Nothing to resume: the output folder '{tmp_path}' holds no run. Leave --resume out."
    with pytest.raises(InputError, match=re.escape(expected)):
        check_output_dir(make_run(output_dir=str(tmp_path), resume=True))


@pytest.mark.parametrize("part", [".locks", "models--hfprobe--simple-cnn", "models--hfprobe--simple-cnn/refs"])
def test_a_hub_folder_with_a_part_that_cannot_be_written_is_refused_before_training(tmp_path, part):
    (tmp_path / "hub" / part).parent.mkdir(parents=True)
    (tmp_path / "hub" / part).touch()
    message = f"cannot be written: '{tmp_path}/hub/{part}' is a file. Pass a folder that you can write to."
    with pytest.raises(InputError, match=re.escape(message)):
        check_output_dir(make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub")))


def test_a_hub_folder_on_several_file_systems_is_refused_before_training(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"))
    check_output_dir(config)
    monkeypatch.setattr(os, "rename", refuse)
    message = f"--hub_dir '{tmp_path}/hub' spans several file systems: a push cannot move files from its .locks to its"
    with pytest.raises(InputError, match=re.escape(message)):
        check_output_dir(config)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_folder_without_links_is_one_warning_before_training(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"))
    monkeypatch.setattr(Path, "symlink_to", refuse)  # os.symlink would do from Python 3.11 on
    for _ in range(2):  # as for each seed
        check_output_dir(config)
    assert caplog.messages == [f"The file system of --hub_dir '{tmp_path}/hub' has no links: files are copied."]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/run", "loop", "a" * 300, "a\0b"])
def test_a_path_that_cannot_be_a_folder_contains_no_run(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert not run_folder.holds_run(tmp_path / place)
    assert RunRecord.find(tmp_path / place) is None


def test_a_push_lock_that_cannot_be_taken_is_found_before_training(tmp_path):
    lock = tmp_path / "hub" / ".locks" / "models--hfprobe--simple-cnn" / "push.lock"
    lock.mkdir(parents=True)
    message = f"--hub_dir '{tmp_path}/hub' cannot be pushed to: '{lock}': Is a directory. Remove it, or pass another"
    with pytest.raises(InputError, match=re.escape(message)):
        check_output_dir(make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub")))


def test_a_push_in_progress_does_not_prevent_the_start_of_a_run(tmp_path):
    lock = tmp_path / "hub" / ".locks" / "models--hfprobe--simple-cnn" / "push.lock"
    lock.parent.mkdir(parents=True)
    with locked(lock):
        check_output_dir(make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub")))
