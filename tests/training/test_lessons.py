import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import set_seed

from helpers.image_folders import write_images
from helpers.images import CLASSES
from helpers.models import PROBE
from helpers.runs import small_config
from hfprobe.cli.run_flags import parse_run
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model
from hfprobe.models.answers import Solved
from hfprobe.models.linear_probe import folds
from hfprobe.models.linear_probe.features import CPU_BATCH_SIZE
from hfprobe.models.loading import load_model
from hfprobe.models.passport import Passport, Taught
from hfprobe.models.teacher import load_teacher
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training.assembly import assemble_trainer
from hfprobe.training.lessons import FIRST_VIEW, Lesson, TaughtBatches, prepare_lesson
from hfprobe.training.start import run_training

pytestmark = pytest.mark.slow

FEW = {"max_train_samples": 60, "max_eval_samples": 30}
TAUGHT = {"recipe": "distill", "teacher_sees": "crop", "teacher_views": 2}


@pytest.fixture(scope="module")
def school(dataset_folder, tmp_path_factory):
    """A folder with a probe that was trained on 60 of 160 images, in the hub folder `hub`."""
    folder = tmp_path_factory.mktemp("school")
    run_training(small_config(dataset_folder, folder, model="probe", **PROBE | FEW))
    shutil.rmtree(folder / "run")
    return folder


def student_config(dataset_folder, school, folder, **values):
    return small_config(dataset_folder, folder, **FEW | TAUGHT | {"hub_dir": str(school / "hub")} | values)


def prepare(config) -> Lesson:
    """The lesson of a run, without the run."""
    images = load_images(config.data, seed=config.split_seed)
    config = config.for_images(images)
    _, processor = build_model("cnn", labels=images.class_names, options=config.model)
    splits = images.decode("train", "validation", processor=processor)
    return prepare_lesson(config, images=images, splits=splits, processor=processor)


def test_targets_are_the_answers_of_the_teacher_for_the_crop_that_the_student_sees(dataset_folder, school, tmp_path):
    config = student_config(dataset_folder, school, tmp_path, teacher_temperature=2.0)
    lesson = prepare(config)
    images = load_images(config.data, seed=config.split_seed)
    splits = images.decode("train", "validation", processor=build_model("cnn", labels=CLASSES, options=config.model)[1])
    teacher = load_teacher(config.model.teacher, hub_dir=config.training.hub_dir, splits=splits)
    assert [len(part) for part in lesson.parts] == [60, 100]
    assert lesson.answers.shape == (2, 160, 5)
    for view in range(2):
        batches = ImageBatches(
            lesson.parts[1], processor=teacher.processor, augment=config.data.augmentation, seed=config.split_seed
        )
        batches.set_epoch(FIRST_VIEW + view)
        logits = []
        for first in range(0, 100, CPU_BATCH_SIZE):  # as features are extracted: their last bits depend on the batch
            positions = np.arange(first, min(100, first + CPU_BATCH_SIZE))
            pixels = batches.__getitems__(np.resize(positions, CPU_BATCH_SIZE))["pixel_values"]
            with torch.inference_mode():
                logits.append(teacher.model(pixel_values=pixels).logits[: len(positions)])
        expected = (torch.cat(logits) / teacher.temperature / 2).softmax(-1)
        np.testing.assert_allclose(lesson.answers[view, 60:], expected, atol=1e-5)
    taught = lesson.inputs(config, batches.processor)
    taught.set_epoch(3)  # of two views, the second
    seen = taught.__getitems__(np.arange(60, 160))
    batches.set_epoch(FIRST_VIEW + 1)
    assert torch.equal(seen["pixel_values"], batches.__getitems__(range(100))["pixel_values"])
    torch.testing.assert_close(seen["targets"], torch.from_numpy(lesson.answers[1, 60:]))
    assert (seen["labels"] == -1).all()


def test_with_answers_to_whole_images_the_crops_are_those_of_any_training(dataset_folder, school, tmp_path):
    config = student_config(dataset_folder, school, tmp_path, teacher_sees="image", seed=5, split_seed=42)
    lesson = prepare(config)
    whole = prepare(student_config(dataset_folder, school, tmp_path, augment=False))
    np.testing.assert_array_equal(lesson.answers, whole.answers)
    _, processor = build_model("cnn", labels=CLASSES, options=config.model)
    taught = lesson.inputs(config, processor)
    plain = ImageBatches(lesson.parts[0], processor=processor, augment=config.data.augmentation, seed=5)
    seen = []
    for epoch in (0, 7):
        taught.set_epoch(epoch)
        plain.set_epoch(epoch)
        seen.append(taught.__getitems__(range(60))["pixel_values"])
        assert torch.equal(seen[-1], plain.__getitems__(range(60))["pixel_values"])
    assert not torch.equal(*seen)


def test_no_head_answers_for_an_image_that_it_was_solved_with(dataset_folder, school, tmp_path, monkeypatch):
    solved = []
    problem = folds.Problem
    monkeypatch.setattr(folds, "Problem", lambda rows, *rest: solved.append(rows[0][:]) or problem(rows, *rest))
    config = student_config(dataset_folder, school, tmp_path, augment=False)
    lesson = prepare(config)
    assert [len(features) for features in solved] == [45] * 4
    rows, counts = np.unique(np.concatenate(solved), axis=0, return_counts=True)
    assert len(rows) == 60  # each image was left out once, with a quarter of the others
    assert (counts == 3).all()
    assert len(lesson.answers) == 1  # without augmentation there is one view


def test_with_one_image_of_a_class_the_head_of_the_teacher_answers_for_all(school):
    model, _ = load_model(next((school / "hub").glob("models--*/snapshots/*")))
    head = folds.Heads.of(model)
    features = np.random.default_rng(0).normal(size=(1, 21, model.config.feature_size)).astype(np.float32)
    one = folds.FeatureSplit(features, np.append(np.arange(20) % 4, 4))
    assert folds.solve_folds(one, head, solved=Solved(np.arange(21), {"penalty": 0.1}, None)) is head
    two = folds.FeatureSplit(features, np.append(np.arange(20) % 5, 4))
    heads = folds.solve_folds(two, head, solved=Solved(np.arange(1, 21), {"penalty": 0.1}, None))
    assert len(heads.weight) == 4
    assert sorted(np.concatenate(heads.positions)) == list(range(21))
    np.testing.assert_allclose(heads.answer(features[0])[0], head.answer(features[0])[0], rtol=1e-4)


def test_a_student_is_a_plain_cnn_whose_records_name_the_teacher(dataset_folder, school, tmp_path):
    run = run_training(student_config(dataset_folder, school, tmp_path))
    record = json.loads((run.output_dir / "run.json").read_text())
    taught = record["taught"]
    assert re.fullmatch("linear-probe-small@[0-9a-f]{12}", taught["teacher"])
    assert record["config"]["model"]["teacher"] == taught["teacher"]
    assert (taught["labelled"], taught["unlabelled"], taught["views"]) == (60, 100, 2)
    card = (run.revision.path / "README.md").read_text()
    assert f"labelled by {taught['teacher']}" in card
    assert "60 labelled and 100 unlabelled" in card
    model, _ = load_model(run.revision.path)
    assert type(model).__name__ == "SimpleCNN"
    assert Passport.of(model).taught.teacher == taught["teacher"]
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    plain = run_training(small_config(dataset_folder, tmp_path / "plain", **FEW))
    assert plain.model.state_dict().keys() == weights.keys()


def test_a_student_resumes_to_the_bit_with_the_same_teacher_and_images_only(dataset_folder, school, tmp_path):
    more = write_images(tmp_path / "more", names=["x"], count=6)
    values = {"num_train_epochs": 2, "unlabelled": str(more)}
    run = run_training(student_config(dataset_folder, school, tmp_path, **values))
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    shutil.rmtree(max(run.output_dir.glob("checkpoint-*"), key=lambda place: int(place.name.split("-")[1])))
    again = run_training(student_config(dataset_folder, school, tmp_path, resume=True, **values))
    assert again.result.metrics == run.result.metrics
    assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())
    with pytest.raises(InputError, match=r"--teacher_views was 2, is 3"):
        run_training(student_config(dataset_folder, school, tmp_path, resume=True, teacher_views=3, **values))
    next(more.rglob("*.png")).unlink()
    with pytest.raises(InputError, match="the unlabelled images was"):
        run_training(student_config(dataset_folder, school, tmp_path, resume=True, **values))


def test_batches_hold_each_image_with_its_own_target(dataset_folder, school, tmp_path):
    config = student_config(dataset_folder, school, tmp_path, augment=False, teacher_weight=0.5)
    lesson = prepare(config)
    _, processor = build_model("cnn", labels=CLASSES, options=config.model)
    taught = lesson.inputs(config, processor)
    labels = np.eye(5)[lesson.parts[0].labels]
    np.testing.assert_allclose(taught.targets[0, :60], (lesson.answers[0, :60] + labels) / 2, rtol=1e-6)
    batch = taught.__getitems__([130, 3, 70, 59])
    alone = [taught[position] for position in (3, 59, 70, 130)]
    for name, values in batch.items():
        assert torch.equal(values, torch.stack([image[name] for image in alone])), name
    subset = taught.take(np.array([3, 59, 70]))
    assert isinstance(subset, TaughtBatches)
    assert len(subset) == 3
    assert torch.equal(subset[2]["targets"], alone[2]["targets"])
    assert torch.equal(subset[2]["pixel_values"], alone[2]["pixel_values"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher": "nobody"}, "--teacher: No model 'nobody'"),
        (
            {"teacher": "auto", "hub_dir": "elsewhere"},
            "--teacher auto: the hub folder 'elsewhere' has no model",
        ),
        ({"teacher_views": 0}, "--teacher_views is 0; allowed: 1 to 1,000"),
        ({"teacher_weight": 1.5}, "--teacher_weight is 1.5; allowed: 0 to 1"),
        ({"unlabelled": "train"}, "is a split that this run trains, validates or tests with"),
        ({"unlabelled": "./nowhere"}, "--unlabelled './nowhere' does not exist."),
        ({"split_seed": 7}, "validates or tests with. It was trained with: --dataset "),
        ({"max_train_samples": 50}, "was trained and validated on other images than this run"),
        (
            {"classes": ["cat", "dog"]},
            "has the classes airplane, automobile, bird, cat, dog, and this run has cat, d",
        ),
    ],
)
def test_what_cannot_teach_is_refused_in_one_line(dataset_folder, school, tmp_path, values, message):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        prepare(student_config(dataset_folder, school, tmp_path, **values))
    assert "\n" not in str(refused.value)


def test_a_teacher_may_have_searched_its_head_but_not_seen_the_validation_images(dataset_folder, tmp_path):
    values = {**PROBE, **FEW, "model": "probe", "head_search": True, "refit": True}
    run = run_training(small_config(dataset_folder, tmp_path, **values))
    with pytest.raises(InputError, match=r"was solved on train \+ validation \(--refit\)"):
        prepare(student_config(dataset_folder, tmp_path, tmp_path / "student"))
    stamp = Passport.of(run.model)
    path = shutil.copytree(run.revision.path, tmp_path / "copy")
    replace(stamp, refit=False).stamp(run.model)
    run.model.save_pretrained(path)
    lesson = prepare(student_config(dataset_folder, tmp_path, tmp_path / "student", teacher=str(path)))
    assert lesson.answers.shape == (2, 160, 5)
    np.testing.assert_allclose(lesson.answers.sum(-1), 1, rtol=1e-5)


def test_a_model_that_no_run_trained_cannot_teach(dataset_folder, school, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(next((school / "hub").glob("models--*/snapshots/*")), path)
    config = json.loads((path / "config.json").read_text())
    for name, message in (("calibration_temperature", "has no temperature"), ("run", "does not say which images")):
        del config[name]
        (path / "config.json").unlink()
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=message):
            prepare(student_config(dataset_folder, school, tmp_path, teacher=str(path)))


def test_the_probe_has_no_teacher(dataset_folder, tmp_path):
    message = "--teacher is a setting of the model cnn, not of probe. Leave it out, or pass another --model."
    with pytest.raises(InputError, match=re.escape(message)):
        parse_run(["--model", "probe", "--teacher", "linear-probe"])
    with pytest.raises(InputError, match=re.escape(message.replace("--", ""))):
        make_run(model="probe", dataset=str(dataset_folder), teacher="linear-probe", output_dir=str(tmp_path))


def draw_faint(count, *, seed):
    """Noise with a faint pattern of the class, which ten images do not show: ImageSplit."""
    patterns = np.random.default_rng(0).choice([-4, 4], size=(5, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    labels = np.arange(count) % 5
    noise = np.random.default_rng(seed).integers(64, 192, (count, 32, 32, 3))
    return ImageSplit(images=(noise + patterns[labels]).astype(np.uint8), labels=labels, index=np.arange(count))


def test_a_perfect_teacher_speeds_a_student_up(dataset_folder, tmp_path):
    """After the same number of steps, with the same labels, a network with a teacher has learned more."""
    train, validation, few = draw_faint(200, seed=1), draw_faint(100, seed=2), np.arange(10)
    parts = [train.take(few), replace(train.take(np.arange(10, 200)), labels=np.full(190, -1))]
    taught = Taught("t", "", "image", 1, 1.0, 1.0, 10, 190, [], {})
    answers = np.eye(5, dtype=np.float32)[train.labels][None]
    values = {"max_steps": 40, "per_device_train_batch_size": 10, "eval_strategy": "no", "save_strategy": "no"}
    config = small_config(dataset_folder, tmp_path, load_best_model_at_end=False, augment=False, **values)
    config = config.for_images(load_images(config.data, seed=42))
    accuracies = []
    for lesson in (None, Lesson(parts, answers, taught, 0.0)):
        set_seed(1)
        model, processor = build_model("cnn", labels=CLASSES, options=config.model)
        batches, held_out = (ImageBatches(part, processor=processor) for part in (parts[0], validation))
        inputs = batches if lesson is None else lesson.inputs(config, processor)
        trainer = assemble_trainer(config=config, model=model, processor=processor, train=inputs, validation=held_out)
        trainer.train()
        accuracies.append(trainer.evaluate()["eval_accuracy"])
    assert accuracies[1] > accuracies[0] + 0.1


def test_a_network_that_took_gradient_steps_can_teach_too(dataset_folder, tmp_path):
    run = run_training(small_config(dataset_folder, tmp_path, **FEW))
    config = student_config(dataset_folder, tmp_path, tmp_path / "student", teacher="simple-cnn-small")
    lesson = prepare(config)
    batches = ImageBatches(
        lesson.parts[0], processor=run.processor, augment=config.data.augmentation, seed=config.split_seed
    )
    batches.set_epoch(FIRST_VIEW)
    with torch.inference_mode():
        logits = run.model.eval()(pixel_values=batches.__getitems__(range(60))["pixel_values"]).logits
    expected = (logits / run.model.config.calibration_temperature).softmax(-1)
    np.testing.assert_allclose(lesson.answers[0, :60], expected, atol=1e-5)
