import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from helpers.images import CLASSES, draw_images
from helpers.models import CARD, cat_model, save_model
from hfprobe.cli.command import run_command
from hfprobe.hub.local import push_model
from hfprobe.models.thresholds import Thresholds
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.tasks.predict import cli as predict

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub folder with one model, that says `cat` to every image."""
    folder = tmp_path_factory.mktemp("predict") / "hub"
    model, processor = cat_model()
    model.config.calibration_temperature = 1000.0
    thresholds = [ChosenThreshold(accuracy, 0.9, 300, 400) for accuracy in (0.9, 0.95)]
    thresholds += [ChosenThreshold(0.98, 1.0, 100, 400), ChosenThreshold(0.99, None, 0, 400)]
    calibrated = [replace(chosen, threshold=0.2) for chosen in thresholds]
    Thresholds(thresholds, calibrated).stamp(model)
    push_model(model=model, processor=processor, hub_dir=folder, name="simple-cnn", card=CARD)
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six images in a folder, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(draw_images(6, classes=5)[0]):
        PIL.Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(hub, monkeypatch, capsys, caplog):
    """Run the command in this process; its lines on standard output, and what it says beside them."""
    caplog.set_level("INFO", logger="hfprobe")

    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["predict.py", "--hub_dir", str(hub), *map(str, arguments)])
        caplog.clear()
        with pytest.raises(SystemExit) as stopped:
            run_command(predict.main)
        printed = capsys.readouterr()
        assert stopped.value.code == code, printed.err
        return printed.out.splitlines(), "\n".join([*caplog.messages, printed.err.strip()]).strip()

    return call


def test_one_line_per_image_with_path_label_probability_and_the_next(run, photos):
    lines, _ = run("photos", "--top", 2)
    assert len(lines) == 6
    for number, line in enumerate(lines):
        path, label, share, sure, other, second = line.split("\t")
        assert (path, label, sure) == (f"photos/{number}.png", "cat", "sure")
        assert other in CLASSES
        assert re.fullmatch(r"\d\.\d{4}", share)
        assert float(share) > 0.99 > float(second)


def test_images_may_stand_on_both_sides_of_a_flag(run, photos):
    lines, _ = run("photos/1.png", "--top", 1, "photos/0.png")
    assert [line.split("\t")[0] for line in lines] == ["photos/1.png", "photos/0.png"]


def test_a_temperature_calibrates_and_a_threshold_tells_what_is_not_sure(run, photos):
    lines, _ = run("photos/1.png", "--temperature")
    _, label, share, sure = lines[0].split("\t")
    assert (label, sure) == ("cat", "not sure")
    assert 0.2 < float(share) < 0.3, "a temperature of 1,000 makes all classes nearly as probable"
    assert run("photos/1.png", "--temperature", "--threshold", 0.2)[0][0].split("\t")[3] == "sure"


@pytest.mark.parametrize(
    ("flags", "threshold", "accuracy"),
    [
        (["--threshold", "auto"], "0.9", "95"),
        (["--threshold", "auto:0.9"], "0.9", "90"),
        (["--threshold", "auto:0.98"], "1", "98"),
        (["--threshold", "auto", "--temperature"], "0.2", "95"),
    ],
)
def test_auto_uses_the_threshold_that_the_model_has_for_an_accuracy(run, photos, flags, threshold, accuracy):
    lines, said = run("photos/1.png", *flags, "--output", "out.csv", "--html", "sheet.html")
    _, label, share, answer = lines[0].split("\t")
    assert (label, answer) == ("cat", "sure" if float(share) >= float(threshold) else "not sure")
    assert (
        f"Threshold: {threshold}, chosen on the validation images of the model so that at least {accuracy} % of the "
        "answers are correct for images from the same source. It does not recognise images of none of the classes."
    ) in said.splitlines()
    (row,) = csv.DictReader(Path("out.csv").read_text().splitlines())
    assert row["sure"] == str(answer == "sure").lower()
    assert f"at least {accuracy}\u00a0% of the answers" in Path("sheet.html").read_text()


def test_auto_is_refused_where_the_model_has_no_such_threshold(run, photos, tmp_path):
    assert (
        "--threshold auto:0.99 has no threshold in this model: " in run("photos", "--threshold", "auto:0.99", code=2)[1]
    )
    said = run("photos", "--model", save_model(tmp_path / "model"), "--threshold", "auto", code=2)[1]
    assert said == (
        "error: This model has no thresholds for 'auto': it was not trained by hfprobe. "
        "Train it again, or pass --threshold with a number."
    )


def test_every_format_holds_the_same_rows(run, photos):
    (photos / 'bad, "name".png').write_text("no image")
    for ending in ("csv", "jsonl", "parquet"):
        run("photos", "--top", 9, "--output", f"out.{ending}")
    table = pq.read_table("out.parquet").to_pylist()
    names = [
        "path",
        "predicted_label",
        "probability",
        "sure",
        *(f"{key}_{n}" for n in range(2, 6) for key in ("predicted_label", "probability")),
    ]
    assert list(table[0]) == [*names, "error"]
    assert [row["path"] for row in table] == [
        *(f"photos/{number}.png" for number in range(6)),
        'photos/bad, "name".png',
    ]
    assert [row["sure"] for row in table] == [True] * 6 + [None]
    assert [row["error"] for row in table] == [None] * 6 + ["not an image"]
    for row in table[:6]:
        shares = [row[name] for name in row if name.startswith("probability")]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-6)
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    with open("out.csv", newline="") as stream:
        cells = list(csv.DictReader(stream))
    for row, line, cell in zip(table, lines, cells, strict=True):
        assert list(line) == list(cell) == list(row)
        for name, value in row.items():
            if isinstance(value, float):
                assert np.float32(line[name]) == np.float32(cell[name]) == np.float32(value)
            else:
                assert line[name] == value
                assert cell[name] == {None: "", True: "true"}.get(value, value)


def test_an_older_file_is_replaced_and_nothing_else_is_left(run, photos):
    Path("out.csv").write_text("older")
    run("photos", "--output", "out.csv", "--html", "sheet.html")
    assert Path("out.csv").read_text().startswith("path,predicted_label,probability,sure,error\n")
    assert sorted(path.name for path in Path().iterdir()) == ["out.csv", "photos", "sheet.html"]


def test_bad_files_are_named_at_the_end_and_the_others_classified(run, photos):
    for number in range(25):
        (photos / f"x{number:02}.jpg").write_bytes(b"\xff\xd8\xff damaged")
    lines, said = run("photos")
    assert len(lines) == 6
    named = [line for line in said.splitlines() if line.startswith("Could not be read: ")]
    assert named[0] == "Could not be read: photos/x00.jpg: not an image"
    assert len(named) == 20
    assert said.splitlines()[-2:] == [
        "... and 5 more. --output lists all of them.",
        "25 of 31 files could not be read.",
    ]


def test_larger_images_than_a_limit_are_named_and_those_of_a_higher_one_classified(run, photos):
    PIL.Image.new("RGB", (300, 200)).save(photos / "large.png")
    lines, said = run("photos", "--max_pixels", 60000)
    assert len(lines) == 7
    assert "Could not be read" not in said
    lines, said = run("photos", "--max_pixels", 59999)
    assert len(lines) == 6
    assert "photos/large.png: it has 60,000 pixels; allowed: at most 59,999 (--max_pixels sets it)" in said


def test_no_readable_file_fails_after_its_rows_are_written(run, photos):
    (photos / "bad.png").write_text("no image")
    lines, said = run("photos/bad.png", "--output", "out.jsonl", "--html", "sheet.html", code=1)
    assert lines == []
    assert said.endswith("error: None of the 1 files could be read. Pass images such as JPEG or PNG files.")
    assert json.loads(Path("out.jsonl").read_text())["error"] == "not an image"
    assert "not an image" in Path("sheet.html").read_text()


def test_paths_come_from_standard_input(run, photos, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos/3.png\nmissing.png\n")))
    lines, said = run("-", "photos/1.png")
    assert [line.split("\t")[0] for line in lines] == ["photos/3.png", "photos/1.png"]
    assert "Could not be read: missing.png: No such file or directory" in said


def test_names_with_control_signs_stay_on_one_line_and_are_kept_in_files(run, photos):
    awful = "photos/two\nlines\t, <b>&.png"
    (photos / "0.png").rename(awful)
    with open(os.fsencode(photos / "caf") + b"\xe9.png", "wb") as stream:
        stream.write((photos / "1.png").read_bytes())
    (photos / "=1+1.png").write_bytes((photos / "1.png").read_bytes())
    os.chdir(photos)
    lines, _ = run(".", "--output", "../out.csv")
    os.chdir("..")
    assert "./two\\nlines\\t, <b>&.png\tcat\t" in "\n".join(lines)
    with open("out.csv", newline="", encoding="utf-8") as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    assert "./two\nlines\t, <b>&.png" in paths
    assert "./caf\\udce9.png" in paths
    os.chdir(photos)
    run("=1+1.png", "--output", "../out.csv")
    os.chdir("..")
    assert Path("out.csv").read_text().splitlines()[1].startswith("'=1+1.png,cat,")


def test_a_terminal_shows_a_table_that_fits(run, photos, monkeypatch):
    (photos / "0.png").rename(photos / f"{'long' * 30}.png")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    lines, _ = run("photos", "--top", 2, "--temperature")
    assert lines[0].split() == ["image", "label", "probability", "next"]
    assert len(lines) == 8
    assert max(map(len, lines)) <= 70
    assert "..." in lines[6]
    assert {line.index("cat") for line in lines[1:7]} == {lines[0].index("label")}
    assert all("not sure" in line for line in lines[1:7])
    assert lines[-1] == "6 images: not sure 6."


def test_a_terminal_shows_the_first_of_many_images_and_counts(run, photos, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(predict, "MOST_ROWS", 4)
    lines, _ = run("photos")
    assert len(lines) == 1 + 4 + 2
    assert lines[-2] == "These are the first 4 of 6 images; --output FILE.csv writes all of them."
    assert lines[-1] == "6 images: cat 6."


def test_a_model_folder_or_name_and_the_only_model_are_the_same(run, photos, hub):
    (folder,) = (hub / "models--hfprobe--simple-cnn" / "snapshots").iterdir()
    found = [run("photos", *flags)[0] for flags in ([], ["--model", "hfprobe/simple-cnn"], ["--model", folder])]
    assert found[0] == found[1] == found[2]


def test_several_models_or_none_are_told(run, photos, tmp_path):
    assert run("photos", "--hub_dir", "nowhere", code=2)[1].endswith(
        "error: --model is missing, and the hub folder 'nowhere' has no model. Pass a model folder, or train one: "
        "hfprobe train --model cnn"
    )
    model, processor = cat_model()
    for name in ("b", "a"):
        push_model(model=model, processor=processor, hub_dir=tmp_path / "two", name=name, card=CARD)
    assert run("photos", "--hub_dir", tmp_path / "two", code=2)[1].endswith(
        f"error: --model is missing, and the hub folder '{tmp_path}/two' has: a, b. Pass one of them."
    )


def test_a_model_without_a_temperature_is_refused(run, photos, tmp_path):
    folder = save_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["calibration_temperature"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "error: This model has no temperature" in run("photos", "--model", folder, "--temperature", code=2)[1]


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is no image to classify. Allowed: folders, files, patterns such as 'photos/*.jpg', and -"),
        (["-"], "There is no image in '-'."),
        (["empty"], "There is no image in 'empty'."),
        (["nowhere"], "'nowhere' does not exist."),
        (["photos", "--model", "resnet"], "No model 'resnet': neither a folder nor a name in the hub folder"),
        (["photos", "--output", "out.txt"], "--output 'out.txt' has an unknown ending; allowed: .csv, .jsonl,"),
        (["photos", "--output", "out"], "--output 'out' has an unknown ending; allowed: .csv, .jsonl,"),
        (["photos", "--html", "a.csv"], "--html 'a.csv' has an unknown ending; allowed: .html, .htm."),
        (["photos", "--output", "no/a.csv"], "--output 'no/a.csv' cannot be written: there is no folder 'no'."),
        (["photos", "--output", "folder.csv"], "--output 'folder.csv' is a folder. Pass the path of a file."),
        (["photos", "--output", "/proc/a.csv"], "--output '/proc/a.csv' cannot be written: "),
        (["photos", "--output", f"{'x' * 300}.csv"], "x.csv' cannot be written: File name too long. Pass"),
        (["photos", "--top", "0"], "argument --top: '0' is invalid; allowed: a whole number, 1 to 1,000"),
        (["photos", "--threshold", "1.5"], "argument --threshold: '1.5' is invalid; allowed: 0 to 1, auto, auto:0.9,"),
        (["photos", "--threshold", "auto:0.97"], "'auto:0.97' is invalid; allowed: 0 to 1, auto, auto:0.9, auto:0.95"),
        (["photos", "--treshold", "1"], "Unknown argument '--treshold'. Did you mean --threshold?"),
        (["photos", "--output", ""], "--output has an empty value."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_the_work(run, photos, arguments, message, monkeypatch):
    for name in ("empty", "folder.csv"):
        Path(name).mkdir()
    monkeypatch.setattr("hfprobe.models.loading.load_model", lambda folder: pytest.fail("the work has begun"))
    lines, said = run(*arguments, code=2)
    assert lines == []
    assert message in said
    assert len(said.splitlines()) == 1


def test_nothing_is_written_into_the_folder_of_the_model(run, photos, tmp_path):
    folder = save_model(tmp_path / "model")
    message = f"error: --html '{folder}/a.html' is or lies inside the model folder '{folder}'."
    assert message in run("photos", "--model", folder, "--html", folder / "a.html", code=2)[1]


@pytest.mark.parametrize("dataset", ["photos", "table.csv", "data.parquet"])
@pytest.mark.parametrize("link", [False, True])
def test_nothing_is_written_into_the_dataset_of_the_run(run, photos, tmp_path, dataset, link):
    """A table of predictions among the images would be read as labels by the next training."""
    Path("table.csv").write_text("file,label\nphotos/1.png,cat\n")
    Path("data.parquet").touch()
    folder = save_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["run"]["dataset"] = str(tmp_path / dataset)
    (folder / "config.json").write_text(json.dumps(config))
    (photos / "old").mkdir()
    Path("link").symlink_to(photos / "old")
    inside = "link" if link else "photos/old/../old"
    wrong = {
        "photos": [f"{inside}/a.csv", f"{inside}/a.html", "photos/a.jsonl"],
        "table.csv": [f"{inside}/a.csv", "photos/a.html", "table.csv"],
        "data.parquet": ["data.parquet"],
    }
    before = sorted(tmp_path.rglob("*"))
    for file in wrong[dataset]:
        flag = "--html" if file.endswith("html") else "--output"
        said = run("photos/1.png", "--model", folder, flag, file, code=2)[1]
        assert said.startswith(f"error: {flag} '{file}' ")
        assert f"the dataset '{tmp_path / dataset}'" in said
        assert f" Results would be mixed with other files: pass {flag} with a " in said
    assert sorted(tmp_path.rglob("*")) == before
    run("photos", "--model", folder, "--output", "a.csv", "--html", "a.html")


@pytest.mark.parametrize("place", ["photos", "photos/", ".", "phot*", "-"])
def test_nothing_is_written_into_a_folder_that_is_being_classified(run, photos, monkeypatch, place):
    named = {"phot*": "photos", "-": "photos"}.get(place, place)
    for flag, file in (("--output", "photos/a.csv"), ("--html", "photos/a.html")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos\n")))
        assert run(place, flag, file, code=2)[1] == (
            f"error: {flag} '{file}' is inside '{named}', whose images are being classified. Results would be mixed "
            f"with other files: pass {flag} with a path outside it."
        )
    run("photos/*.png", "--output", "photos/a.csv", "--html", "photos/a.html")  # files that are named are no folder


def test_a_file_to_classify_is_not_overwritten(run, photos):
    (photos / "list.CSV").write_text("a.png\n")
    said = run("photos/0.png", photos / "list.CSV", "--output", "photos/../photos/list.CSV", code=2)[1]
    assert said == "error: --output 'photos/../photos/list.CSV' is one of the files to classify. Pass another path."
    assert (photos / "list.CSV").read_text() == "a.png\n"


@pytest.mark.slow
def test_a_closed_pipe_ends_the_command_quietly(photos, hub):
    (photos / "0.png").rename(photos / "[0].png")
    command = [sys.executable, str(ROOT / "scripts" / "predict.py"), "photos/*.png", "-", "--hub_dir", str(hub)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        process.stdin.write(b"photos/[0].png\n")
        process.stdin.close()
        said = process.stderr.read().decode()
    assert process.returncode == 141
    assert said.splitlines()[-1].startswith("Predicting: 6 of 6")
