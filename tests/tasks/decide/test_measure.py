"""The road of a decision on tiny images: from a folder to the page, and the same command again."""

import json
import re
import shlex
import shutil
import signal
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

import hfprobe
import hfprobe.tasks.decide.measure as decide
from helpers.pages import Page
from hfprobe.cli import main as console
from hfprobe.models import find_family
from hfprobe.system.errors import InputError, StoppedError
from hfprobe.tasks.compare.comparable import load_comparable
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.decide import plan, prepare, ranking, rates, training
from hfprobe.tasks.decide.plan import Plan, StopAtDeadline
from hfprobe.tasks.decide.result import Decision
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stages import Stages
from hfprobe.tasks.decide.wishes import Wishes
from hfprobe.tasks.label_efficiency import measure as label_efficiency
from hfprobe.tasks.profile import measure as profile
from hfprobe.training.callbacks import StopOnSignal

PROBE = ["--backbones", "test_byobnet=random"]
QUICK = ["decide", "photos", *PROBE, "--epochs", 1]

pytestmark = pytest.mark.usefixtures("narrow_network")


def write_photos(folder, *, per_class=20):
    """Two classes of noise, one darker than the other."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for count in range(per_class):
            pixels = generator.integers(100 * number, 100 * number + 150, (8, 8, 3)).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{count}.png")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, caplog):
    """Run a console command in this process, in an empty folder; its standard output."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    for name in ("cnn", "probe"):
        monkeypatch.setattr(find_family(name), "profile_batch_size", 2)
    # A short measurement for the plan.
    for name, value in {"SECONDS": 0.1, "SAMPLE": 8, "SOLVED_IMAGES": 20, "STEPS": 3}.items():
        monkeypatch.setattr(rates, name, value)
    for name in ("REPORT", "MEMORY", "COMPARISON", "CURVE", "AUDIT_PAGE"):
        monkeypatch.setattr(plan, name, 0.1)
    monkeypatch.setattr(decide, "write_profile", lambda profile, folder: None)  # draws bar charts
    timing = profile.time_in_turn
    monkeypatch.setattr(profile, "time_in_turn", lambda steps, **how: timing(steps, **how | {"seconds": 0.001}))
    monkeypatch.setattr(profile, "peak_memory", lambda folder, model, **_: 4 * model.num_parameters() + 1)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["hfprobe", *map(str, words)])
        caplog.clear()
        console.run()
        return capsys.readouterr().out

    return call


def stage_lines(caplog):
    """The progress lines of the stages, without the line of the plan."""
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("decide.stages")]
    return [line for line in lines if not line.startswith("Planned")]


def test_one_command_trains_compares_and_answers_and_the_same_command_repeats_nothing(
    run, tmp_path, caplog, monkeypatch
):
    out = run(*QUICK)
    lines = stage_lines(caplog)
    assert [line.split(":")[0] for line in lines] == ["1", *(f"{n} of {len(lines)}" for n in range(2, len(lines) + 1))]
    sentences = out.strip().splitlines()
    assert sentences[-2] == "Page:    reports/decision-photos/decision.html (open it in a browser)"
    assert sentences[-1].startswith("Predict: ")
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    assert decision.sentences == sentences[:3]
    assert list(decision.candidates) == ["linear-probe-photos", "simple-cnn-photos"]
    assert decision.judgement.n == 8
    page = (folder / "decision.html").read_text()
    assert decision.audit.sentences
    for part in ("probe-seed42/report.html", "comparison/comparison.html", "audit/audit.html"):
        assert (folder / part).is_file()
    assert decision.sentences[0].split(":")[0] in page

    for name in ("run_training", "evaluate_images", "profile_models"):
        module = training if name == "run_training" else decide
        monkeypatch.setattr(module, name, partial(pytest.fail, f"{name} was called"))
    monkeypatch.setattr(prepare, "audit", partial(pytest.fail, "the images were audited again"))
    assert run(*QUICK) == out
    assert Decision.load(folder).judgement == decision.judgement
    assert sum("finished before" in line for line in stage_lines(caplog)) >= 4
    assert json.loads((folder / "stages.json").read_text()).keys() >= {"probe-seed42", "cnn-seed42", "test", "profile"}


@pytest.mark.slow
def test_the_files_of_an_export_are_on_the_page_of_the_same_command(run, tmp_path, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra export is not installed")
    folder = tmp_path / "reports" / "decision-photos"
    run(*QUICK)
    assert "As exported files" not in (folder / "decision.html").read_text()
    export = hfprobe.load("simple-cnn-photos").export()
    monkeypatch.setattr(training, "run_training", partial(pytest.fail, "a model was trained again"))
    run(*QUICK)
    decision, comparison = Decision.load(folder), Comparison.load(folder / "comparison")
    assert list(decision.candidates) == ["linear-probe-photos", "simple-cnn-photos"]  # files are no candidates
    exported = {name: model.cost.exported for name, model in comparison.models.items()}
    assert {name: list(found) for name, found in exported.items()} == {
        "linear-probe-photos": [],
        "simple-cnn-photos": ["onnx"],
    }
    found = exported["simple-cnn-photos"]["onnx"]
    assert (found.accuracy, found.n) == (export.parity["model.onnx"].accuracy, decision.judgement.n)
    page = (folder / "decision.html").read_text()
    assert '<h3 id="exported">As exported files</h3>' in page
    assert f"<title>simple-cnn-photos (onnx): {100 * found.accuracy:.2f}" in page


@pytest.mark.slow
def test_with_images_without_labels_a_student_of_the_probe_is_the_third_answer(run, tmp_path):
    shutil.copytree(tmp_path / "photos", tmp_path / "more")  # none of which may be used
    generator = np.random.default_rng(1)
    for number in range(6):
        pixels = generator.integers(0, 250, (8, 8, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "more" / f"new{number}.png")
    out = run(*QUICK, "--unlabelled", "more")
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    assert list(decision.candidates) == ["linear-probe-photos", "simple-cnn-photos", "student-photos"]
    probe, student = (decision.candidates[name] for name in ("linear-probe-photos", "student-photos"))
    assert student.settings["teacher"] == f"{probe.name}@{probe.revision[:12]}"
    record = json.loads((folder / "runs" / "student-seed42" / "run.json").read_text())
    assert record["taught"]["unlabelled"] == 6
    assert sum(record["taught"]["left_out"].values()) == 40
    page = (folder / "decision.html").read_text()
    assert "student-photos" in page
    assert "26 images and 6 without labels" in page
    assert "Left out of the images without labels: " in page
    assert "--unlabelled more" in decision.commands[0]
    assert run(*QUICK, "--unlabelled", "more") == out
    PIL.Image.fromarray(255 - pixels).save(tmp_path / "more" / "another.png")
    run(*QUICK, "--unlabelled", "more")
    record = json.loads((folder / "runs" / "student-seed42" / "run.json").read_text())
    assert record["taught"]["unlabelled"] == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "5m"], "--budget cannot limit the time that --unlabelled takes. Leave one of them out."),
        (["--models", "cnn"], "--unlabelled needs a probe that labels the images, and there is none."),
    ],
)
def test_a_student_that_cannot_be_planned_or_taught_is_refused(run, flags, message):
    quick = [word for word in QUICK if flags[0] != "--models" or word not in PROBE]
    with pytest.raises(InputError, match=re.escape(message)):
        run(*quick, "--unlabelled", "photos", *flags)


@pytest.mark.slow
def test_copies_are_kept_in_one_of_the_parts_that_are_drawn(run, tmp_path):
    loaded = hfprobe.load_images("photos", seed=42)
    names = {part: [item["path"] for item in rows["image"]] for part, rows in loaded.parts.items()}
    trained = next(path for path in names["train"] if "dark" in path)
    shutil.copy(trained, next(path for path in names["test"] if "dark" in path))
    run(*QUICK)
    decision = Decision.load(tmp_path / "reports" / "decision-photos")
    assert decision.audit.leaked == 0
    assert "in 1 group of duplicates" in decision.audit.sentences[1]
    assert decision.judgement.n == 7
    config = tmp_path / "reports" / "decision-photos" / "runs" / "cnn-seed42" / "config.yaml"
    assert f"audit: {tmp_path / 'reports' / 'decision-photos' / 'audit'}" in config.read_text()


@pytest.mark.slow
def test_test_images_of_the_dataset_that_are_copies_of_training_images_are_left_out_of_a_second_score(run, tmp_path):
    shutil.rmtree("photos")
    write_photos(tmp_path / "photos" / "train")
    for name in ("dark", "light"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for number in range(6):
            photo = tmp_path / "photos" / "train" / name / f"{number}.png"
            (photo.rename if number else partial(shutil.copy, photo))(tmp_path / "photos" / "test" / name / photo.name)
    run(*QUICK)
    whole = Decision.load(tmp_path / "reports" / "decision-photos")
    assert whole.audit.leaked == 2
    assert whole.audit.clean.keys() == {"linear-probe-photos", "simple-cnn-photos"}
    page = Page((tmp_path / "reports" / "decision-photos" / "decision.html").read_text()).text
    assert "2 test images that have an exact or near duplicate" in page
    run(*QUICK, "--drop_leaks")
    clean = Decision.load(tmp_path / "reports" / "decision-photos")
    trained = [found.candidates["simple-cnn-photos"].train_images for found in (whole, clean)]
    assert 0 < trained[0] - trained[1] <= 2
    assert "--drop_leaks" in clean.commands[0]


@pytest.mark.slow
def test_of_several_backbones_the_best_on_validation_is_taken_and_the_page_shows_all(run, tmp_path, monkeypatch):
    asked = {}

    def answer(self, images, labels=(0, 1)):
        name = self.variant
        asked.setdefault(name, len(images.parts["test"]))
        given = np.arange(6) % 2
        wrong = {"test_byobnet": 0, "test_resnet": 3}[name]
        predictions = np.where(np.arange(6) < wrong, 1 - given, given)
        return {"labels": given, "predictions": predictions, "neighbours": given, "seconds": 1.0}

    monkeypatch.setattr(ranking, "_predict", answer)
    run("decide", "photos", "--backbones", "test_resnet=random", "test_byobnet=random", "--epochs", 1)
    decision = Decision.load(tmp_path / "reports" / "decision-photos")
    assert decision.ranking.chosen == {"probe": "test_byobnet"}
    assert decision.candidates["linear-probe-photos"].settings["backbone"] == "test_byobnet"
    assert asked.keys() == {"test_byobnet", "test_resnet"}
    page = Page((tmp_path / "reports" / "decision-photos" / "decision.html").read_text()).text
    assert "test_resnet" in page
    assert "50.00\u00a0%" in page


def without_times(page):
    """The text of a page but for its times, and for what depends on them."""
    text = re.sub(r"Inference cost.*?Training curves|Inference cost.*?Confusion", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"<p>[^<]* classifies [^<]*</p>", "", text)
    text = re.sub(r"[0-9a-f]{40}|@[0-9a-f]{12}", "", text)  # of models, whose config holds the time of training
    return re.sub(r"\d+(\.\d+)?( |\u00a0)(s|min)\b", "", text)


STAGES = {
    "plan": (prepare, "measure_rates"),
    "decode": (prepare, "fingerprint_of"),
    "extract": (prepare, "limit_images"),
    "audit": (prepare, "save_audit"),
    "probe": (training, "run_training"),
    "test": (decide, "evaluate_images"),
    "profile": (decide, "profile_models"),
    "compare": (decide, "save_comparison"),
}


@pytest.mark.faults
def test_after_a_failure_in_any_stage_the_same_command_ends_with_the_same_page(run, tmp_path, monkeypatch):
    quick = [*QUICK, "--epochs", 2]
    folder = tmp_path / "reports" / "decision-photos"
    run(*quick)
    expected = without_times(folder / "decision.html")
    for module, function in STAGES.values():
        for left in ("reports", "hub"):
            shutil.rmtree(tmp_path / left)
        whole, calls = getattr(module, function), []

        def broken(*args, whole=whole, calls=calls, **values):
            calls.append(1)
            if len(calls) == 2 or whole.__name__ in ("profile_models", "save_comparison", "save_audit"):
                raise RuntimeError("pulled the plug")
            return whole(*args, **values)

        with monkeypatch.context() as patch:
            patch.setattr(module, function, broken)
            with pytest.raises(RuntimeError, match="pulled the plug"):
                run(*quick)
        assert not (folder / "decision.html").exists()
        run(*quick)
        assert without_times(folder / "decision.html") == expected


@pytest.mark.slow
def test_a_run_that_a_signal_stops_is_continued_by_the_same_command(run, tmp_path, monkeypatch):
    quick = [*QUICK, "--epochs", 3]

    def ask_at_end(self, args, state, control, **values):
        if state.epoch == 1 and "decision" in args.output_dir:
            self._asked = signal.SIGTERM
            self._save_and_stop(args, control)

    with monkeypatch.context() as patch:
        patch.setattr(StopOnSignal, "on_epoch_end", ask_at_end)
        with pytest.raises(StoppedError) as stopped:
            run(*quick)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert str(stopped.value) == (
        "Stopped in stage 6 of 10 (train simple-cnn-photos); what is finished is kept in reports/decision-photos. To "
        "continue, run the same command."
    )
    run(*quick)
    decision = Decision.load(tmp_path / "reports" / "decision-photos")
    history = decision.candidates["simple-cnn-photos"].history
    assert [epoch.epoch for epoch in history] == [1, 2, 3]


@pytest.mark.slow
def test_a_new_photo_repeats_what_depends_on_the_images_and_a_touched_one_nothing(run, tmp_path, caplog):
    run(*QUICK)
    photo = tmp_path / "photos" / "dark" / "0.png"
    photo.touch()
    run(*QUICK)
    assert sum("finished before" in line for line in stage_lines(caplog)) == 8
    photo.with_name("new.png").write_bytes((tmp_path / "photos" / "light" / "0.png").read_bytes())
    run(*QUICK)
    assert not any("finished before" in line for line in stage_lines(caplog))
    assert Decision.load(tmp_path / "reports" / "decision-photos").candidates["simple-cnn-photos"].train_images > 25


@pytest.mark.slow
def test_further_seeds_train_the_network_again_and_the_page_shows_each(run, tmp_path):
    run(*QUICK, "--seeds", 2)
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    assert list(decision.candidates) == ["linear-probe-photos", "simple-cnn-photos", "simple-cnn-photos (seed 43)"]
    assert decision.compared == ["linear-probe-photos", "simple-cnn-photos"]
    assert decision.judgement.seeds == 2
    assert "on average over 2 seeds" in decision.verdict
    assert 'href="cnn-seed43/report.html">seed 43</a>' in (folder / "decision.html").read_text()
    # The last command of the decision makes the same comparison.
    (command,) = [words for words in map(shlex.split, decision.commands) if words[1] == "compare"]
    again = compare(load_comparable([tmp_path / words for words in command[2:4]]))
    assert again.pairs == Comparison.load(folder / "comparison").pairs


@pytest.mark.slow
def test_training_that_overruns_its_budget_is_stopped_after_an_epoch_and_the_page_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "StopAtDeadline", lambda deadline: StopAtDeadline(0.0))
    run(*QUICK, "--epochs", 3, "--budget", "1h")
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    assert decision.candidates["simple-cnn-photos"].epochs == 1
    sentence = "The training of simple-cnn-photos was stopped after 1 of 3 planned epochs"
    assert decision.gave_up == [f"{sentence}, because it took longer than planned."]
    assert sentence in (folder / "decision.html").read_text()


@pytest.mark.slow
def test_a_budget_that_is_too_small_ends_with_one_line(run):
    with pytest.raises(
        InputError, match="--budget is 1 s; the least that would do for these images on this machine is"
    ):
        run(*QUICK, "--budget", "1s")


@pytest.mark.slow
def test_in_python_the_winner_predicts(run, tmp_path, capsys):
    images = hfprobe.load_images("photos")
    decision = hfprobe.decide(images, report_dir="answer", epochs=1, backbones=["test_byobnet=random"])
    assert decision.winner.name == decision.candidates[decision.judgement.best].name
    assert decision.winner.predict(["photos/dark/0.png"]).labels[0] in ("dark", "light")
    assert set(decision.results) == {"linear-probe-photos", "simple-cnn-photos"}
    assert "test accuracy" in decision._repr_html_()
    assert repr(decision) == decision.verdict
    assert (tmp_path / "answer" / "decision.html").is_file()
    with pytest.raises(InputError, match=r"^budget is -1; allowed"):
        hfprobe.decide(images, budget=-1)


@pytest.mark.slow
def test_without_any_weights_the_other_model_is_trained_and_the_page_says_how_to_get_them(run, tmp_path, monkeypatch):
    monkeypatch.setattr("hfprobe.models.linear_probe.available.is_installed", lambda package: False)
    out = run("decide", "photos", "--epochs", 1)
    assert "There is one model only, so nothing was compared: simple-cnn-photos." in out
    decision = Decision.load(tmp_path / "reports" / "decision-photos")
    assert (decision.judgement.kind, list(decision.candidates)) == ("alone", ["simple-cnn-photos"])
    page = Page((tmp_path / "reports" / "decision-photos" / "decision.html").read_text()).text
    assert "A model is missing. --backbones auto finds no weights: vit_tiny_patch16_224 cannot be downloaded (" in page
    with pytest.raises(InputError, match="finds no weights"):
        run("decide", "photos", "--models", "probe")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--dataset", "photos"], "'photos' and --dataset 'photos' both name the images."),
        (["nowhere"], "'nowhere'"),
        (["photos", "--budget", "soon"], "'soon' is invalid; allowed: a time such as 90s, 15m or 2h"),
        (["photos", "--budget", "0s"], "'0s' is invalid"),
        (["photos", "--margin", "-1"], "'-1' is invalid; allowed: 0 to 100"),
        (["photos", "--models", "resnet"], "Unknown model 'resnet'"),
        (["photos", "--models", "cnn", "cnn"], "A model is named twice in --models."),
        (["photos", "--models", "cnn", "--backbones", "resnet18"], "--backbones is not a flag of cnn."),
        (
            ["photos", "--backbones", "resnet18", "resnet18=hub"],
            "--backbones names resnet18 twice. Pass each backbone once.",
        ),
        (["photos", "--backbones", "resnet18=nothing.pth"], "'nothing.pth'"),
        (["photos", "--backbones", "no_such_net"], "no_such_net"),
        (["photos", "--report_dir", "photos/report"], "--report_dir 'photos/report' lies inside the dataset 'photos'"),
        (["photos", "--seed", str(2**32 - 1), "--seeds", "2"], "The last seed is 4294967296"),
        (["photos/dark"], "photos/dark"),
        (["photos", "--classes", "dark"], "--classes names only dark"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(run, tmp_path, words, message):
    with pytest.raises(InputError) as error:
        run("decide", *words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "reports").exists()


@pytest.mark.slow
def test_features_and_costs_that_overrun_the_budget_are_cut_and_the_page_says_so(run, tmp_path, monkeypatch):
    found = Stages.deadline

    def deadline(self, name, wishes):
        return 0.0 if name in ("extract", "profile") else found(self, name, wishes)

    monkeypatch.setattr(Stages, "deadline", deadline)
    run(*QUICK, "--budget", "1h")
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    assert decision.gave_up == [
        "The extraction of features was stopped after 2 of 26 planned train, 2 of 6 planned validation, 2 of 8 planned "
        "test images, because it took longer than planned.",
        "The inference cost was not measured; hfprobe profile does it.",
    ]
    assert decision.judgement.n == 2
    assert {candidate.train_images for candidate in decision.candidates.values()} == {2}
    assert not any("inference" in stage.title for stage in decision.stages)
    assert decision.gave_up[0] in Page((folder / "decision.html").read_text()).text
    assert decision.commands[0].endswith("--budget 3600s --report_dir reports/decision-photos")


@pytest.mark.slow
def test_the_network_is_trained_with_few_images_too_without_reading_test(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(prepare, "SHOTS", (2, 6, 1000))
    monkeypatch.setattr(label_efficiency, "LEAST_STEPS", 1)
    run(*QUICK, "--label_efficiency")
    folder = tmp_path / "reports" / "decision-photos"
    decision = Decision.load(folder)
    (points,) = decision.few_labels.values()
    assert [(point.shots, point.n, point.draws) for point in points] == [(2, 6, 1), (6, 6, 1)]  # of validation
    page = Page((folder / "decision.html").read_text()).text
    assert "simple-cnn-photos, trained once with few images per class (the dashed curve): " in page
    assert "--label_efficiency" in decision.commands[0]
    with monkeypatch.context() as patch:
        patch.setattr(label_efficiency, "fit", partial(pytest.fail, "a point was measured again"))
        run(*QUICK, "--label_efficiency")
    assert Decision.load(folder).few_labels == decision.few_labels
    photo = tmp_path / "photos" / "dark" / "0.png"
    PIL.Image.new("RGB", (8, 8), "red").save(photo)
    run(*QUICK, "--label_efficiency")
    assert [point.shots for (points,) in [Decision.load(folder).few_labels.values()] for point in points] == [2, 6]


@pytest.mark.parametrize("budget", [None, 60.0])
def test_only_a_budget_explains_that_a_run_ended_early(tmp_path, budget):
    trained = {"cnn": SimpleNamespace(epochs=3.0)}
    runs = [Run("cnn-seed42", "cnn", {"model": "cnn"}, {"cnn": {}}, solved=False)]
    plan = Plan({}, {"cnn-seed42": 20.0}, {}, frozenset(), [])
    found = training.find_cut(trained, runs, plan, Wishes(tmp_path, budget=budget))
    assert len(found) == (budget is not None)
