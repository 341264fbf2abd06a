import errno
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training.resume import check_output_dir, claimed
from hfprobe.training.run_files import check_places, claim, delete_run

# Of every kind of file that a run writes, one.
WRITTEN = [
    *("run.json", ".run.json.part", "trainer_state.json", "all_results.json", "train_results.json"),
    *("config.yaml", ".config.yaml.part"),
    *("checkpoint-20/model.safetensors", "checkpoint-20/optimizer.pt", "checkpoint-20/rng_state_1.pth"),
    *("checkpoint-20/manifest.json", "checkpoint-20/modeling.py", "checkpoint-20/progress-0.json"),
    *(".saving/checkpoint-30/config.json", "model/config.json", "model/preprocessor_config.json"),
    *("tensorboard/events.out.tfevents.17.host.1.0", "profile/trace.json", "profile/operators_by_time.txt"),
]


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"run": {"seed": 1}}' if name.endswith("config.json") else name)


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    own = ["notes.txt", "photos/cat/1.jpg", "hub/models--hfprobe--m/blobs/1", "run.json.bak", "checkpoint-20.zip"]
    fill(tmp_path, [*WRITTEN, *own])
    delete_run(tmp_path)
    assert names_in(tmp_path) == sorted(own)


def test_other_files_in_folders_with_the_names_of_a_run_are_kept(tmp_path):
    own = [
        "model/cat/1.jpg",
        "tensorboard/notes.txt",
        "profile/me.png",
        "checkpoint-photos/1.jpg",
        "checkpoint-1 b/1.jpg",
    ]
    fill(tmp_path, [*WRITTEN, *own])
    (tmp_path / "profile" / "trace.json.d").mkdir()
    delete_run(tmp_path)
    assert names_in(tmp_path) == sorted(own)
    assert not (tmp_path / "checkpoint-20").exists()


def test_a_model_that_no_run_of_hfprobe_wrote_is_kept(tmp_path):
    own = ["model/config.json", "model/model.safetensors"]
    fill(tmp_path, ["run.json", *own])
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    delete_run(tmp_path)
    assert names_in(tmp_path) == own


@pytest.mark.parametrize("values", [{"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("own", ["checkpoint-20/1.jpg", "checkpoint-9/model.safetensors", ".saving/1.jpg"])
def test_other_files_where_a_run_deletes_checkpoints_are_refused(tmp_path, own, values):
    fill(tmp_path, [*(f"out/{name}" for name in WRITTEN), f"out/{own}"])
    before = names_in(tmp_path)
    expected = (
        f"'{tmp_path / 'out' / own}' lies where a run keeps its checkpoints, and no run of hfprobe wrote it. Noth"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        delete_run(tmp_path / "out")
    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"), **values)
    with pytest.raises(InputError, match=re.escape(expected)):  # before an image is loaded
        check_output_dir(config)
    assert names_in(tmp_path) == before


def test_links_in_the_folder_of_a_run_are_not_followed(tmp_path):
    fill(tmp_path, ["out/run.json", "photos/1.jpg", "photos/config.json"])
    (tmp_path / "out" / "model").symlink_to(tmp_path / "photos")
    (tmp_path / "out" / "trainer_state.json").symlink_to(tmp_path / "photos" / "1.jpg")
    delete_run(tmp_path / "out")
    assert (tmp_path / "out" / "model").is_symlink()
    assert names_in(tmp_path) == ["out/trainer_state.json", "photos/1.jpg", "photos/config.json"]
    (tmp_path / "out" / "checkpoint-3").symlink_to(tmp_path / "photos")
    with pytest.raises(InputError, match="no run of hfprobe wrote it"):
        delete_run(tmp_path / "out")


def test_an_output_folder_that_is_a_link_stays_one(tmp_path):
    fill(tmp_path, ["disk/run.json", "disk/notes.txt"])
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    arguments = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"), overwrite=True)
    check_output_dir(arguments)
    with claimed(arguments.training):
        assert names_in(tmp_path / "disk") == [".lock", "notes.txt"]
    assert (tmp_path / "out").is_symlink()


PLACES = {
    "photos": "--output_dir '{}' is or holds the dataset 'photos'.",
    "photos/train/..": "--output_dir '{}' is or holds the dataset 'photos'.",
    "link": "--output_dir '{}' is or holds the dataset 'photos'.",
    ".": "--output_dir '{}' is or holds the dataset 'photos'.",
    "photos/out": "--output_dir '{}' lies inside the dataset 'photos'.",
    "link/train/cat": "--output_dir '{}' lies inside the dataset 'photos'.",
    "../other/hub": "--output_dir '{}' is or holds the hub folder '../other/hub'.",
    "../other": "--output_dir '{}' is or holds the hub folder '../other/hub'.",
    "..": "--output_dir '{}' is or holds the ",
    "../other/hub/../out": None,
    "runs/a": None,
    "photos2": None,
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_output_folders_that_overlap_images_models_or_the_working_directory_are_refused(
    tmp_path, monkeypatch, place, overwrite
):
    fill(tmp_path, ["work/photos/train/cat/1.jpg", "other/hub/x"])
    monkeypatch.chdir(tmp_path / "work")
    os.symlink("photos", "link")
    before = names_in(tmp_path)
    config = make_run(output_dir=place, dataset="photos", hub_dir="../other/hub", overwrite=overwrite)
    if PLACES[place] is None:
        check_output_dir(config)
    else:
        with pytest.raises(InputError, match=re.escape(PLACES[place].format(place))):
            check_output_dir(config)
    assert names_in(tmp_path) == before


def test_the_working_directory_is_refused_as_output_folder(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(InputError, match=re.escape("--output_dir '.' is or holds the working directory '.'.")):
        check_places(".", flag="--output_dir", dataset="a/b", hub_dir="../hub")


def test_a_hub_folder_inside_the_dataset_is_refused(tmp_path):
    fill(tmp_path, ["photos/train/cat/1.jpg"])
    config = make_run(
        output_dir=str(tmp_path / "a"), dataset=str(tmp_path / "photos"), hub_dir=str(tmp_path / "photos/h")
    )
    with pytest.raises(InputError, match=re.escape(f"--hub_dir '{tmp_path}/photos/h' lies inside the dataset")):
        check_output_dir(config)


HOLD = """
import sys
from pathlib import Path
from hfprobe.training.run_files import claim

with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused_and_a_killed_run_leaves_no_lock(tmp_path):
    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"))
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", HOLD, tmp_path / "out"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for attempt in (lambda: check_output_dir(config), lambda: claimed(config.training).__enter__()):
            with pytest.raises(InputError, match=re.escape(f"Another run is writing into '{tmp_path}/out'.")):
                attempt()
        other.send_signal(signal.SIGKILL)
    with claimed(config.training), pytest.raises(InputError, match="Another run"), claim(tmp_path / "out"):
        pass
    with claimed(config.training):  # given back
        pass


def test_a_run_that_another_finished_meanwhile_is_not_overwritten(tmp_path):
    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"))
    check_output_dir(config)
    fill(tmp_path, ["out/run.json"])
    with pytest.raises(InputError, match="holds another run"), claimed(config.training):
        pass
    assert names_in(tmp_path) == ["out/.lock", "out/run.json"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning_and_leaves_no_lock_behind(tmp_path, monkeypatch, caplog, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".lock").touch()  # of a run that was copied here
    for _ in range(2):
        held = claim(tmp_path)
        held.__enter__()  # never left, as by a process that was killed
        assert caplog.messages.pop() == (
            f"The file system of '{tmp_path}' has no locks: do not start a second run there."
        )
        caplog.clear()


def test_a_lock_that_cannot_be_taken_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    expected = f"The lock '{tmp_path}/.lock' cannot be taken: Is a directory. Remove it, or pass another --output_dir."
    with pytest.raises(InputError, match=re.escape(expected)), claim(tmp_path):
        pass


def test_a_run_in_progress_is_reported_before_the_files_that_it_has_written(tmp_path):
    fill(tmp_path, ["out/run.json"])
    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"))
    with claim(tmp_path / "out"), pytest.raises(InputError, match="Another run is writing into"):
        check_output_dir(config)


def test_a_name_that_is_not_a_valid_path_is_not_searched_for(tmp_path):
    for name in ("a" * 300, "a\0b"):
        check_places(tmp_path, flag="--output_dir", dataset=name)


def test_a_staging_folder_with_other_files_is_refused_for_a_first_run_too(tmp_path):
    fill(tmp_path, ["out/.saving/1.jpg"])
    config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"))
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}/out/.saving/1.jpg' lies where a run keeps its")):
        check_output_dir(config)


@pytest.mark.parametrize("own", ["all_results.json", "train_results.json", "trainer_state.json", "config.yaml"])
def test_results_of_another_program_are_not_overwritten(tmp_path, own):
    fill(tmp_path, [f"out/{own}"])
    for values in ({}, {"overwrite": True}):
        config = make_run(output_dir=str(tmp_path / "out"), hub_dir=str(tmp_path / "hub"), **values)
        with pytest.raises(InputError) as refused:
            check_output_dir(config)
        assert str(refused.value) == (
            f"A run would write over '{tmp_path}/out/{own}', which no run of hfprobe wrote. Move it, or pass another "
            "--output_dir."
        )
    fill(tmp_path, ["out/run.json"])  # of a run, and so all of them
    check_output_dir(config)


@pytest.mark.parametrize("kind", ["config.json", "model.safetensors", "link", "file"])
def test_another_model_is_not_overwritten_by_a_probe(tmp_path, kind):
    model = tmp_path / "out" / "model"
    fill(tmp_path, ["out/notes.txt", "other/config.json"])
    if kind == "link":  # even to a model of hfprobe: it would be written over
        model.symlink_to(tmp_path / "other")
    else:
        fill(tmp_path, ["out/model" if kind == "file" else f"out/model/{kind}"])
        if kind == "config.json":
            (model / kind).write_text('{"model_type": "bert"}')
    expected = (
        f"A run would write over '{model}', which no run of hfprobe wrote. Move it, or pass another --output_dir."
    )
    places = {"output_dir": str(tmp_path / "out"), "hub_dir": str(tmp_path / "hub")}
    with pytest.raises(InputError, match=re.escape(expected)):
        check_output_dir(make_run(model="probe", **places))
    check_output_dir(make_run(**places))  # a CNN has checkpoints only


def test_a_probe_may_lie_beside_other_files_or_replace_its_own(tmp_path):
    fill(tmp_path, ["a/model/cat/1.jpg", "b/run.json", "b/model/config.json", "b/model/model.safetensors"])
    for name in "ab":
        check_output_dir(
            make_run(model="probe", output_dir=str(tmp_path / name), hub_dir=str(tmp_path / "hub"), overwrite=True)
        )


def test_a_parent_folder_that_cannot_be_read_is_skipped(tmp_path, monkeypatch):
    original = os.stat

    def refuse(path, *args, **kwargs):
        if str(path) == str(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    check_places(tmp_path / "out", flag="--output_dir", dataset="a/b", hub_dir=tmp_path / "hub")


@pytest.mark.parametrize("place", ["model", "link", "model/report"])
def test_a_report_is_kept_out_of_the_folder_of_a_model(tmp_path, place):
    fill(tmp_path, ["model/config.json"])
    (tmp_path / "link").symlink_to("model")
    expected = f"--report_dir '{tmp_path}/{place}' is or lies inside the model folder '{tmp_path}/model'. Results would"
    with pytest.raises(InputError, match=re.escape(expected)):
        check_places(tmp_path / place, flag="--report_dir", models=[tmp_path / "model"])
    check_places(tmp_path / "report", flag="--report_dir", models=[tmp_path / "model"])


@pytest.mark.parametrize("run", [[], {}, {"dataset": 3}, {"dataset": ["photos"]}])
def test_a_damaged_config_names_no_dataset(tmp_path, run):
    fill(tmp_path, ["model/config.json"])
    (tmp_path / "model" / "config.json").write_text(json.dumps({"run": run}))
    check_places(tmp_path / "report", flag="--report_dir", models=[tmp_path / "model"])


def test_a_report_of_a_model_is_kept_out_of_the_dataset_of_its_run(tmp_path):
    fill(tmp_path, ["model/config.json", "photos/cat/1.jpg"])
    dataset = str(tmp_path / "photos")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"run": {"dataset": dataset}}))
    for place, found in (("photos/a/b", "lies inside"), ("photos", "is or holds"), (".", "is or holds")):
        expected = f"--report_dir '{tmp_path / place}' {found} the dataset '{dataset}'. Results would be mixed"
        with pytest.raises(InputError, match=re.escape(expected)):
            check_places(tmp_path / place, flag="--report_dir", models=[tmp_path / "model"])
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "dogs")
    fill(tmp_path, ["dogs/1.jpg"])
    expected = f"lies inside '{dataset}/dog', which holds images of the dataset '{dataset}'. Results would"
    with pytest.raises(InputError, match=re.escape(expected)):
        check_places(tmp_path / "dogs" / "report", flag="--report_dir", models=[tmp_path / "model"])
