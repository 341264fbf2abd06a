import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import hfprobe
from helpers.images import draw_images
from hfprobe.models.thresholds import Thresholds
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.machine import quiet_bars
from hfprobe.system.records import to_json

ROOT = Path(__file__).parent.parent
PROBE = {"backbone": "test_byobnet", "backbone_weights": "random"}
QUICK = {"use_cpu": True, "disable_tqdm": True}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The working directory of this module's trainings."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def images(home, dataset_folder):
    return hfprobe.load_images(dataset_folder, classes=["cat", "dog", "bird"], max_train_samples=60, seed=3)


@pytest.fixture(scope="module")
def cnn(images):
    return hfprobe.train("cnn", images, epochs=2, batch_size=12, lr=0.003, **QUICK)


@pytest.fixture(scope="module")
def probe(images):
    return hfprobe.train("probe", images, **PROBE, **QUICK)


def test_importing_hfprobe_imports_no_library():
    code = (
        "import sys, hfprobe; print(sorted({'numpy', 'torch', 'transformers', 'PIL', 'datasets'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_every_public_name_is_there_documented_and_listed():
    for name in hfprobe.__all__:
        assert getattr(hfprobe, name).__doc__
        assert name in dir(hfprobe)
    with pytest.raises(AttributeError, match="module 'hfprobe' has no attribute 'nothing'"):
        _ = hfprobe.nothing


def test_images_say_what_they_are(images):
    assert "60 train, 24 validation, 36 test; classes cat, dog, bird" in repr(images)
    assert images.counts()["test"] == [12, 12, 12]
    assert images._repr_html_().count("<tr>") == 4


def test_training_uses_the_settings_of_the_command_line(cnn, images):
    record = json.loads(Path("runs/small-cnn-fast-seed42/run.json").read_text())
    training, data = record["config"]["training"], record["config"]["data"]
    assert (training["num_train_epochs"], training["per_device_train_batch_size"]) == (2, 12)
    assert (data["classes"], data["max_train_samples"], data["split_seed"]) == (["cat", "dog", "bird"], 60, 3)
    assert cnn.validation == record["result"]["metrics"]
    assert cnn.images is images
    assert cnn.labels == ["cat", "dog", "bird"]


def test_a_model_says_what_it_is(cnn):
    assert repr(cnn).startswith(
        "hfprobe/simple-cnn-small (SimpleCNN, 2,470,915 parameters, classes cat, dog, bird, valid"
    )


@pytest.mark.parametrize("model", ["cnn", "probe"])
def test_predict_evaluate_the_command_and_a_pipeline_give_the_same_probabilities(
    model, images, tmp_path, request, monkeypatch
):
    from transformers import pipeline

    from hfprobe.tasks.predict.cli import main

    model = request.getfixturevalue(model)
    result = model.evaluate()
    pixels = images.decode("test", processor=model.processor).test.images
    paths = []
    for number, row in enumerate(images.parts["test"]):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(row["image"]["bytes"])
    by_path, by_array = model.predict(paths), model.predict(pixels)
    by_image = model.predict([PIL.Image.open(path) for path in paths])
    np.testing.assert_allclose(by_path.probabilities, result.probabilities, atol=1e-5)
    np.testing.assert_array_equal(by_image.probabilities, by_path.probabilities)
    np.testing.assert_allclose(by_array.probabilities, by_path.probabilities, atol=1e-5)
    classify = pipeline("image-classification", model=model.model, image_processor=model.processor, device="cpu")
    for found, shares in zip(classify([str(path) for path in paths], top_k=3), by_path.probabilities, strict=True):
        scores = {entry["label"]: entry["score"] for entry in found}
        np.testing.assert_allclose([scores[label] for label in model.labels], shares, atol=1e-4)
    output = tmp_path / "predictions.jsonl"
    command = ["predict.py", *paths, "--model", model.folder, "--top", "3", "--output", output]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    main()
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    for row, shares in zip(rows, by_path.probabilities, strict=True):
        found = {row[f"predicted_label{end}"]: row[f"probability{end}"] for end in ("", "_2", "_3")}
        np.testing.assert_allclose([found[label] for label in model.labels], shares, atol=1e-6)


def test_one_image_alone_and_images_of_several_kinds(cnn, tmp_path):
    PIL.Image.new("L", (50, 40), 200).save(tmp_path / "grey.png")
    grey = np.full((40, 50), 200, dtype=np.uint8)
    alone = cnn.predict(tmp_path / "grey.png")
    assert len(alone) == 1
    mixed = cnn.predict([str(tmp_path / "grey.png"), grey, np.stack([grey] * 3, axis=2), PIL.Image.fromarray(grey)])
    np.testing.assert_allclose(mixed.probabilities, np.repeat(alone.probabilities, 4, axis=0), atol=1e-6)
    assert mixed.names == [str(tmp_path / "grey.png"), "image 1", "image 2", "image 3"]
    assert mixed.labels == [cnn.labels[mixed.probabilities[0].argmax()]] * 4
    np.testing.assert_array_equal(mixed.confidences, mixed.probabilities.max(axis=1))


def test_an_image_in_memory_is_read_like_the_file(cnn, tmp_path):
    image = PIL.Image.fromarray(draw_images(1, classes=1)[0][0]).convert("RGBA")
    image.putalpha(100)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    opened = PIL.Image.open(tmp_path / "turned.png")
    found = [cnn.predict(item).probabilities for item in (tmp_path / "turned.png", opened)]
    np.testing.assert_array_equal(found[0], found[1])
    assert opened.getexif()[0x0112] == 6, "the user's image is left as it is"


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "There is no image to classify. Allowed: paths, bytes of image files, open files, dicts with"),
        (3, "An image is an object of type int. Allowed: paths"),
        ({"a": 1}, "An image is an object of type dict. Allowed: paths"),
        (pd.DataFrame({"image": ["a.png"]}), "An image is an object of type DataFrame. Allowed: paths"),
        (datasets.DatasetDict(), "An image is an object of type DatasetDict. Allowed: paths"),
        (datasets.Dataset.from_dict({"a": [1]}), "The Dataset has no image column; its columns: a. Pass one of them:"),
        (datasets.Dataset.from_dict({"image": []}), "There is no image to classify. Allowed: paths"),
        ([None], "'image 0' cannot be read: it is an object of type NoneType. Allowed: paths"),
        ("missing.png", "'missing.png' cannot be read: No such file or directory. Replace it, or leave it out."),
        (b"bytes", "'image 0' cannot be read: not an image. Replace it, or leave it out."),
        (b"", "'image 0' cannot be read: the file is empty. Replace it, or leave it out."),
        ({"bytes": None, "path": "missing.png"}, "'missing.png' cannot be read: No such file or directory."),
        (
            io.StringIO("text"),
            "'image 0' cannot be read: it is a file that was opened as text; open it with mode 'rb'",
        ),
        (np.zeros((4, 4, 3)), "it is an array of shape (4, 4, 3) with float64 values from 0 to 0. Allowed: paths"),
        (
            np.zeros((4, 4, 3)),
            "If its values are from 0 to 1, multiply by 255, round, and convert to uint8. Replace it",
        ),
        (torch.ones(3, 4, 4), "it is a tensor of shape (3, 4, 4) with float32 values from 1 to 1. Allowed: paths"),
        (torch.ones(3, 4, 4).bfloat16(), "it is a tensor of shape (3, 4, 4) with bfloat16 values from 1 to 1. Allowed"),
        (torch.ones(3, 4, 3, dtype=torch.uint8), "it is a tensor of shape (3, 4, 3) with uint8 values. Allowed: paths"),
        (
            torch.ones(3, 4, 3, dtype=torch.uint8),
            "Its shape does not say which axis has the channels: pass an array of",
        ),
        (torch.ones(2, 4, 5, dtype=torch.uint8), "it is a tensor of shape (2, 4, 5) with uint8 values. Allowed: paths"),
        (np.zeros((3, 4, 5), np.uint8), "Move the channels to the end: array.transpose(1, 2, 0). Replace it"),
        (np.zeros((4, 4, 4), np.uint8), "it is an array of shape (4, 4, 4) with uint8 values. Allowed: paths"),
        (np.array("a.png"), "it is an array of shape () with <U5 values. Allowed: paths"),
        ([np.zeros((0, 4), np.uint8)], "'image 0' cannot be read: it is an array of shape (0, 4) with uint8 values"),
    ],
)
def test_what_is_no_image_is_refused(cnn, given, message):
    with pytest.raises(hfprobe.InputError, match=re.escape(message)):
        cnn.predict(given)


def test_images_of_every_kind_are_the_same_image(cnn, tmp_path):
    pixels = draw_images(1, classes=1, size=40)[0][0]
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    content, tensor = (tmp_path / "a.png").read_bytes(), torch.from_numpy(pixels)
    rows = datasets.Dataset.from_dict({"img": [{"bytes": content, "path": "b.png"}, {"bytes": content, "path": None}]})
    images = rows.cast_column("img", datasets.Image())
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.png").write_bytes(content)
    written = io.BytesIO()
    PIL.Image.fromarray(pixels).save(written, format="PNG")
    expected = cnn.predict(pixels).probabilities[0]
    one, two = ["image 0"], ["image 0", "image 1"]
    for given, names in (
        (content, one),
        (bytearray(content), one),
        ([content, content], two),
        (written, one),
        ({"bytes": content, "path": "b.png"}, ["b.png"]),
        ([{"path": str(tmp_path / "a.png")}], [str(tmp_path / "a.png")]),
        (tensor, one),
        (tensor.permute(2, 0, 1), one),
        (torch.stack([tensor] * 2), two),
        (torch.stack([tensor] * 2).permute(0, 3, 1, 2), two),
        (images, ["b.png", "image 1"]),
        (images["img"], ["b.png", "image 1"]),
        (images.with_format("torch"), ["b.png", "image 1"]),
        (images[1]["img"], one),
        (pd.Series([content]), one),
        (tmp_path, [str(tmp_path / "a.png"), str(tmp_path / "more" / "c.png")]),
        ([content, str(tmp_path / "more")], ["image 0", str(tmp_path / "more" / "c.png")]),
    ):
        found = cnn.predict(given)
        assert found.names == names
        np.testing.assert_allclose(found.probabilities, np.stack([expected] * len(names)), atol=1e-6)


def test_the_images_of_a_dataset_are_read_when_they_are_needed(cnn, monkeypatch):
    content = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(content, format="PNG")
    rows = datasets.Dataset.from_dict({"image": [{"bytes": content.getvalue(), "path": None}] * 3 + [None]})
    monkeypatch.setattr("datasets.Image.decode_example", lambda *_, **__: pytest.fail("datasets decoded an image"))
    found = cnn.predict(rows.cast_column("image", datasets.Image()), skip_unreadable=True)
    assert found.names == ["image 0", "image 1", "image 2"]
    assert list(found.unreadable) == ["image 3"]


def test_larger_images_than_a_limit_are_refused(cnn):
    content = io.BytesIO()
    PIL.Image.new("RGB", (30, 20)).save(content, format="PNG")
    with pytest.raises(hfprobe.InputError, match=r"it has 600 pixels; allowed: at most 599 \(max_pixels sets it\)"):
        cnn.predict(content, max_pixels=599)
    assert len(cnn.predict(content, max_pixels=600)) == 1
    with pytest.raises(hfprobe.InputError, match="max_pixels is '9'; allowed: a whole number"):
        cnn.predict(content, max_pixels="9")


def test_images_are_loaded_whatever_the_precision_of_the_environment(dataset_folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert len(hfprobe.load_images(dataset_folder).class_names) == 5


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_train_samples": "60"}, "max_train_samples is '60'; allowed: a whole number, or none."),
        ({"max_train_samples": 0}, "max_train_samples is 0; allowed: 1 to 1,000,000,000."),
        ({"max_pixels": 0}, "max_pixels is 0; allowed: 1 to 10,000,000,000 (each takes 4 bytes of memory)."),
        ({"skip_unreadable": "yes"}, "skip_unreadable is 'yes'; allowed: true or false."),
        ({"group_by": "colour"}, "group_by is 'colour'; allowed: folder, prefix, or none."),
        ({"seed": 0.5}, "seed is 0.5; allowed: a whole number."),
        ({"seed": None}, "seed is None; allowed: a whole number."),
        ({"seed": -1}, "seed is -1; allowed: 0 to 4,294,967,295"),
        ({"classes": "cat"}, "classes is 'cat'; allowed: a list of strings"),
        ({"classes": ["cat"]}, "classes names only cat; allowed: two classes or more."),
        ({"epochs": 3}, "Unknown setting 'epochs' of images. Allowed: dataset_config, train_split"),
    ],
)
def test_settings_of_images_are_checked(dataset_folder, settings, message):
    with pytest.raises(hfprobe.InputError, match=re.escape(message)):
        hfprobe.load_images(dataset_folder, **settings)


def test_a_model_of_images_in_memory_keeps_their_name_and_asks_for_them(home):
    pixels, labels = draw_images(60, classes=3)
    images = hfprobe.load_images((pixels, labels), seed=1)
    name = images.arguments.dataset.replace(":", "-")
    model = hfprobe.train("cnn", images, max_steps=2, batch_size=8, **QUICK)
    assert model.name == f"hfprobe/simple-cnn-{name}"
    assert json.loads(Path(f"runs/{name}-cnn-fast-seed42/run.json").read_text())["config"]["data"]["split_seed"] == 1
    assert "\ndatasets:" not in (model.folder / "README.md").read_text()
    assert model.evaluate().metrics.n == 12
    loaded = hfprobe.load(model.name)
    expected = (
        f"The images '{images.arguments.dataset}' were passed by a Python program and are not kept. Pass them again"
    )
    with pytest.raises(hfprobe.InputError, match=expected):
        loaded.evaluate()
    again = hfprobe.load_images((pixels, labels), seed=1)
    np.testing.assert_array_equal(loaded.evaluate(again).probabilities, model.evaluate().probabilities)


def test_a_file_that_is_no_image_is_named(cnn, tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(hfprobe.InputError, match=re.escape("notes.png' cannot be read: not an image")):
        cnn.predict([tmp_path / "notes.png"])


def test_predictions_show_themselves(cnn):
    predictions = cnn.predict(draw_images(30, classes=3)[0])
    assert repr(predictions).splitlines()[-1] == "... and 10 more"
    assert predictions._repr_html_().count("<tr>") == 21
    assert "The first 20 of 30 images" in predictions._repr_html_()


def test_a_temperature_changes_probabilities_and_no_label(cnn, monkeypatch):
    images = draw_images(6, classes=3)[0]
    monkeypatch.setattr(cnn.model.config, "calibration_temperature", 4.0)
    plain, calibrated = cnn.predict(images), cnn.predict(images, temperature=True)
    assert plain.labels == calibrated.labels
    assert (calibrated.confidences < plain.confidences).all()


def test_a_threshold_says_which_predictions_are_sure(cnn, monkeypatch):
    images = draw_images(12, classes=3)[0]
    middle = float(np.median(cnn.predict(images).confidences))
    found = cnn.predict(images, threshold=middle)
    assert (found.threshold, found.accuracy) == (middle, None)
    assert found.sure.tolist() == (found.confidences >= middle).tolist()
    chosen = [ChosenThreshold(accuracy, middle, 6, 12) for accuracy in (0.9, 0.95, 0.98, 0.99)]
    monkeypatch.setattr(cnn.model.config, "answer_thresholds", to_json(Thresholds(chosen, chosen)))
    found = cnn.predict(images, threshold="auto")
    assert (found.threshold, found.accuracy) == (middle, 0.95)
    assert cnn.predict(images, threshold="auto:0.98").accuracy == 0.98
    with pytest.raises(hfprobe.InputError, match=re.escape("threshold is 'auto:2'; allowed: 0 to 1, auto, ")) as error:
        cnn.predict(images, threshold="auto:2")
    assert "--" not in str(error.value)


def test_a_comparison_has_a_verdict_and_shows_itself(cnn, probe):
    comparison = hfprobe.compare(cnn.evaluate(), probe.evaluate())
    assert set(comparison.results) == {"simple-cnn-small", "linear-probe-small"}
    assert "simple-cnn-small" in comparison.verdict
    assert "n = 36 images" in comparison.verdict or "these 36 images" in comparison.verdict
    assert comparison.verdict == repr(comparison)
    html = comparison._repr_html_()
    assert html.count("<tr>") == 3
    assert "36 test images" in html


def test_names_are_escaped_in_notebooks(cnn):
    result = cnn.evaluate()
    comparison = hfprobe.compare(result, result, names=["<script>", "b"])
    assert "<script>" not in comparison._repr_html_()
    assert "&lt;script&gt;" in comparison._repr_html_()


def test_two_evaluations_of_one_model_get_two_names(cnn):
    result = cnn.evaluate()
    assert set(hfprobe.compare(result, result).results) == {
        f"simple-cnn-small@{cnn.revision[:7]} (1)",
        f"simple-cnn-small@{cnn.revision[:7]} (2)",
    }


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda result: hfprobe.compare(result), "compare() needs two or more evaluations; got 1."),
        (lambda result: hfprobe.compare(result, result, names=["a", "a"]), "allowed: 2 different names."),
        (lambda result: hfprobe.compare(result, result, names=["a"]), "allowed: 2 different names."),
        (lambda result: hfprobe.compare(result, result, profile="nowhere"), "'nowhere' holds no profile"),
    ],
)
def test_what_cannot_be_compared_is_refused(cnn, call, message):
    with pytest.raises(hfprobe.InputError, match=re.escape(message)):
        call(cnn.evaluate())


def test_evaluations_of_different_images_cannot_be_compared(cnn, dataset_folder):
    fewer = hfprobe.load_images(dataset_folder, classes=["cat", "dog", "bird"], max_eval_samples=12, seed=3)
    with pytest.raises(hfprobe.InputError, match=re.escape("cannot be compared, their numbers of images differ")):
        hfprobe.compare(cnn.evaluate(), cnn.evaluate(fewer))


def test_an_evaluation_says_what_it_found(cnn):
    result = hfprobe.evaluate(cnn)
    assert repr(result).startswith("hfprobe/simple-cnn-small on 36 test images: accuracy ")
    assert result._repr_html_().count("<tr>") == 4
    with pytest.raises(hfprobe.InputError, match=re.escape("split is 'train'; allowed: 'test', 'validation'.")):
        cnn.evaluate(split="train")


def test_the_validation_figures_of_a_training_are_those_of_its_evaluation(cnn):
    metrics = cnn.evaluate(split="validation").metrics
    assert metrics["accuracy"] == cnn.validation["accuracy"]
    assert metrics["macro_f1"] == pytest.approx(cnn.validation["macro_f1"], abs=1e-12)


def test_a_saved_model_is_loaded_with_the_same_figures_and_finds_its_images(cnn, tmp_path):
    folder = cnn.save(tmp_path / "cnn")
    loaded = hfprobe.load(folder)
    np.testing.assert_array_equal(loaded.evaluate().probabilities, cnn.evaluate().probabilities)
    assert loaded.images is None
    cnn.save(folder)  # a model is replaced
    named = hfprobe.load("hfprobe/simple-cnn-small")
    assert (named.name, named.revision) == (cnn.name, cnn.revision)
    np.testing.assert_array_equal(hfprobe.evaluate("simple-cnn-small").labels, cnn.evaluate().labels)


@pytest.mark.hostile
def test_a_model_is_not_saved_among_other_files(cnn, tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(hfprobe.InputError, match=re.escape("holds files that are not a model. Pass a new or an empty")):
        cnn.save(tmp_path)
    with pytest.raises(hfprobe.InputError, match=re.escape("photo.jpg' cannot be written")):
        cnn.save(tmp_path / "photo.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_reports_of_evaluations_and_comparisons(cnn, probe, tmp_path):
    page = hfprobe.save_report(cnn.evaluate(), tmp_path / "cnn")
    assert page.name == "report.html"
    assert hfprobe.EvalResult.load(tmp_path / "cnn").metrics == cnn.evaluate().metrics
    page = hfprobe.save_report(hfprobe.compare(cnn.evaluate(), probe.evaluate()), tmp_path / "both")
    assert "linear-probe-small" in page.read_text(encoding="utf-8")


@pytest.mark.hostile
def test_nothing_is_written_into_the_dataset(cnn, dataset_folder):
    result, folder = cnn.evaluate(), dataset_folder / "report"
    loaded = hfprobe.load("simple-cnn-small")  # which knows the dataset by its config only
    compared = hfprobe.compare(result, result)
    message = re.escape(f"folder '{folder}' lies inside the dataset '{dataset_folder}'. Results would be mixed with")
    for write in (
        lambda: hfprobe.save_report(result, folder),
        lambda: hfprobe.save_report(compared, folder),
        lambda: cnn.save(folder),
        lambda: loaded.save(folder),
    ):
        with pytest.raises(hfprobe.InputError, match=message):
            write()
    assert not folder.exists()


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["cat", "dog"]}, "classes cannot be set in train: the images say it. Set it in load_images."),
        ({"split_seed": 1}, "split_seed cannot be set in train"),
        ({"epoch": 1}, "epoch"),
        ({"backbone": "resnet18"}, "backbone"),
        ({"lr": "fast"}, "fast"),
        ({"recipe": "none"}, "Unknown recipe 'none' for model 'cnn'. Available: fast, reference, best, distill."),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_training(images, settings, message):
    with pytest.raises(hfprobe.InputError, match=re.escape(message)):
        hfprobe.train("cnn", images, output_dir="runs/never", **settings)
    assert not Path("runs/never").exists()


@pytest.mark.hostile
def test_a_run_is_not_overwritten_unless_asked(cnn, images):
    with pytest.raises(hfprobe.InputError, match=re.escape("runs/small-cnn-fast-seed42")):
        hfprobe.train("cnn", images, epochs=2, batch_size=12, lr=0.003, **QUICK)
    with pytest.raises(hfprobe.InputError, match=re.escape("Unknown model 'vgg'. Available: cnn, probe.")):
        hfprobe.train("vgg", images)


@pytest.mark.hostile
def test_images_that_do_not_exist_are_refused(dataset_folder):
    with pytest.raises(hfprobe.InputError, match=re.escape("Unknown class 'cow'.")):
        hfprobe.load_images(dataset_folder, classes=["cat", "cow"])
    with pytest.raises(hfprobe.InputError, match=re.escape("max_train_samples")):
        hfprobe.load_images(dataset_folder, max_train_samples=0)


@pytest.mark.slow
def test_the_quickstart_runs(home, dataset_folder, monkeypatch, capsys):
    backbone = ["--backbone", "test_byobnet", "--backbone_weights", "random"]
    monkeypatch.setattr(
        sys, "argv", ["quickstart.py", "--dataset", str(dataset_folder), "--classes", "cat", "dog", *backbone]
    )
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "['cat', 'dog']"
    assert printed[-2] == "Page: reports/quickstart/comparison.html"
    assert Path("reports/quickstart/comparison.html").is_file()


def test_bars_of_other_libraries_are_as_before_afterwards(monkeypatch):
    import datasets
    import transformers

    monkeypatch.delenv("TQDM_DISABLE")
    for enabled in (True, False):
        (datasets.enable_progress_bars if enabled else datasets.disable_progress_bars)()
        with quiet_bars(own=False):
            assert datasets.are_progress_bars_disabled()
            assert not transformers.logging.is_progress_bar_enabled()
            assert os.environ["TQDM_DISABLE"] == "1"
        assert datasets.are_progress_bars_disabled() is not enabled
        assert "TQDM_DISABLE" not in os.environ


def test_several_processes_are_refused(images, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(hfprobe.InputError, match=re.escape("For several: accelerate launch -m hfprobe train.")):
        hfprobe.train("cnn", images)
