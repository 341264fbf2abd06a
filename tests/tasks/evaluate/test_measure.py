import dataclasses
import re

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.audited import save_audit
from helpers.image_folders import find, write_images
from helpers.images import load_splits
from helpers.models import cat_model, stamp
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family
from hfprobe.models.loading import load_model
from hfprobe.models.own_images import load_images_of
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate.measure import evaluate_images, evaluate_model
from hfprobe.tasks.evaluate.result import EvalResult

NAMED = {"name": "m", "revision": "r", "dataset": "photos"}


@pytest.fixture
def splits(dataset_folder):
    return load_splits(DataArguments(dataset=str(dataset_folder), classes=["cat", "dog"]), seed=0)


def test_probabilities_equal_those_of_the_model_and_mistakes_are_the_misclassified_images(splits):
    torch.manual_seed(0)
    model, processor = build_model("cnn", labels=["cat", "dog"], options=find_family("cnn").recipe_options())
    result = evaluate_model(model=model.eval(), processor=processor, splits=splits, split="test", **NAMED)
    assert result.index.tolist() == splits.test.index.tolist()
    images = [PIL.Image.fromarray(image) for image in splits.test.images]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).logits.softmax(-1)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    assert set(result.mistakes) == set(result.index[result.predictions != result.labels].tolist())
    assert result.provenance.split_fingerprint == splits.test.fingerprint


def test_labels_that_do_not_match_the_dataset_are_refused(splits):
    model, processor = build_model("cnn", labels=["dog", "cat"], options=find_family("cnn").recipe_options())
    expected = (
        "The labels of the model (dog, cat) do not match the classes of the dataset (cat, dog). "
        "Pass --classes in the order of the model, or another --dataset."
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        evaluate_model(model=model, processor=processor, splits=splits, split="test", **NAMED)


@pytest.mark.parametrize(
    "content", ["{}", "not json", '{"model_type": "bert"}', '{"model_type": "hfprobe-simple-cnn"}']
)
def test_folder_without_a_model_of_hfprobe_is_an_input_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}' does not hold a model that hfprobe can load: ")):
        load_model(tmp_path)


def test_code_in_a_model_folder_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="does not hold a model that hfprobe can load"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def evaluated(splits, model, processor, **options):
    return evaluate_model(model=model.eval(), processor=processor, splits=splits, split="test", **NAMED, **options)


def test_mirror_images_are_averaged_and_recorded(splits):
    torch.manual_seed(0)
    model, processor = build_model("cnn", labels=["cat", "dog"], options=find_family("cnn").recipe_options())
    plain = evaluated(splits, model, processor)
    mirrored = dataclasses.replace(splits, test=dataclasses.replace(splits.test, images=splits.test.images[:, :, ::-1]))
    other = evaluated(mirrored, model, processor)
    averaged = evaluated(splits, model, processor, tta=True)
    np.testing.assert_allclose(averaged.probabilities, (plain.probabilities + other.probabilities) / 2, atol=1e-6)
    assert averaged.provenance.test_time_augmentation == "mirror image"
    assert plain.provenance.test_time_augmentation is None


def test_temperature_changes_confidences_but_no_predictions(splits):
    torch.manual_seed(0)
    model, processor = build_model("cnn", labels=["cat", "dog"], options=find_family("cnn").recipe_options())
    with pytest.raises(InputError, match=re.escape("This model has no temperature")):
        evaluated(splits, model, processor, temperature=True)
    model.config.calibration_temperature = 3.0
    plain, cooler = evaluated(splits, model, processor), evaluated(splits, model, processor, temperature=True)
    np.testing.assert_array_equal(cooler.predictions, plain.predictions)
    odds = [np.log(result.probabilities[:, 0] / result.probabilities[:, 1]) for result in (plain, cooler)]
    np.testing.assert_allclose(odds[1], odds[0] / 3, atol=1e-4)
    assert cooler.provenance.temperature == 3.0


def write_folder(folder, names, *, count=10):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            PIL.Image.new("RGB", (32, 32), (50 * label, number, 0)).save(folder / name / f"{number}.png")
    return folder


def test_a_model_is_evaluated_on_every_image_of_another_folder(tmp_path):
    model, processor = cat_model()
    images = load_images_of(model, dataset=str(write_folder(tmp_path, ["cat", "dog", "horse"], count=3)), whole=True)
    assert images.counts() == {"all": [0, 0, 0, 3, 3]}
    assert images.left_out == {"class that the model does not have": ["3 images (horse 3)"]}
    result = evaluate_model(
        model=model,
        processor=processor,
        splits=images.decode("all", processor=processor),
        split="all",
        **NAMED,
    )
    assert (result.metrics.n, result.metrics.accuracy) == (6, 0.5)
    assert sorted(result.files)[0] == str(tmp_path / "cat" / "0.png")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("names", "wrong"), [(["cat", "dog", "Dog"], "Dog"), (["cat", "dog", "d-og"], "d-og")])
def test_a_class_that_is_nearly_one_of_the_models_is_refused_in_an_evaluation(tmp_path, names, wrong, whole):
    model = cat_model(labels=["dog", "cat"])[0]
    folder = write_folder(tmp_path, names)
    where = "" if whole else " of split 'train'"
    expected = (
        f"Class '{wrong}'{where} has 10 images and is not a class of the model, which has 'dog'. Rename the class or "
        "move its images, or leave them out on purpose with --classes dog cat."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load_images_of(model, dataset=str(folder), whole=whole)
    images = load_images_of(model, dataset=str(folder), whole=whole, classes=["dog", "cat"])
    assert [f"({wrong} 10)" in text for texts in images.left_out.values() for text in texts] == [True]


@pytest.mark.parametrize(("other", "refused"), [("dogs", True), ("wolf", False), ("cot", False)])
def test_a_class_that_is_similar_to_one_that_has_no_images_is_refused(tmp_path, other, refused):
    folder = write_folder(tmp_path, ["cat", other])
    model = cat_model(labels=["cat", "dog"])[0]
    if refused:
        with pytest.raises(InputError, match=f"^Class '{other}' has 10 images and is not a class of the model, which"):
            load_images_of(model, dataset=str(folder), whole=True)
    else:
        left_out = load_images_of(model, dataset=str(folder), whole=True).left_out
        assert left_out == {"class that the model does not have": [f"10 images ({other} 10)"]}


def test_classes_that_a_run_chose_on_purpose_are_those_of_its_evaluation(tmp_path):
    for split in ("train", "test"):
        write_folder(tmp_path / split, ["cat", "dog", "Dog"])
    model = cat_model(labels=["cat", "dog"])[0]
    stamp(model, dataset=str(tmp_path), split_seed=3)
    with pytest.raises(InputError, match=r"^Class 'Dog' of split 'train' has 10 images"):
        load_images_of(model)
    stamp(model, dataset=str(tmp_path), split_seed=3, classes=["cat", "dog"])
    assert load_images_of(model).left_out == {
        "class that is not among --classes": ["10 train images (Dog 10)", "10 test images (Dog 10)"]
    }


def test_all_images_of_the_models_own_dataset_are_not_evaluated():
    with pytest.raises(
        InputError, match="--split all evaluates every image of a dataset, and this model was trained on"
    ):
        load_images_of(cat_model()[0], whole=True)


def test_a_folder_with_none_of_the_models_classes_is_refused(tmp_path):
    folder = write_folder(tmp_path, ["horse", "frog"], count=1)
    with pytest.raises(InputError, match=r"Unknown class 'airplane'. The dataset has: frog, horse."):
        load_images_of(cat_model()[0], dataset=str(folder), whole=True)


@pytest.mark.parametrize("way", [{"group_by": "prefix"}, {"group_regex": "/(visit[0-9])"}])
def test_an_evaluation_finds_the_images_by_the_settings_of_the_run(tmp_path, way):
    folder = write_folder(tmp_path / "photos", ["cat", "dog"])
    for name in ("cat", "dog"):
        for number in range(10):
            (folder / name / f"{number}.png").rename(folder / name / f"visit{number // 2}_{number}.png")
    settings = DataArguments(dataset=str(folder), **way)
    trained = load_images(settings, seed=3)
    model = cat_model(labels=["cat", "dog"])[0]
    stamp(model, dataset=str(folder), split_seed=3, images=settings.identity())
    found = load_images_of(model)
    assert found.parts["test"]["index"][:] == trained.parts["test"]["index"][:]
    assert found.division == trained.division


def test_the_models_own_dataset_is_known_however_its_path_is_written(tmp_path, monkeypatch):
    write_folder(tmp_path / "photos", ["cat", "dog"])
    monkeypatch.chdir(tmp_path)
    model = cat_model(labels=["cat", "dog"])[0]
    stamp(model, dataset="photos", split_seed=3, images={"test_split": "nowhere"})
    for path in ("photos", "photos/", "./photos", str(tmp_path / "photos")):
        with pytest.raises(InputError, match="this model was trained on some of its own"):
            load_images_of(model, dataset=path, whole=True)
        with pytest.raises(InputError, match="--test_split is 'nowhere'"):  # the settings of the run are used
            load_images_of(model, dataset=path)


def test_folders_without_labels_have_nothing_to_evaluate(tmp_path):
    (tmp_path / "test").mkdir()
    PIL.Image.new("RGB", (32, 32)).save(tmp_path / "test" / "1.png")
    for whole in (True, False):
        expected = f"Put them into one folder per class. To classify images without labels: hfprobe predict {tmp_path}"
        with pytest.raises(InputError, match=f"has no images with labels. {re.escape(expected)}$"):
            load_images_of(cat_model()[0], dataset=str(tmp_path), whole=whole)
    expected = f"holds 1 image in no class folder.*To classify images without labels: hfprobe predict {tmp_path}/test$"
    with pytest.raises(InputError, match=expected):
        load_images_of(cat_model()[0], dataset=str(tmp_path / "test"))


@pytest.mark.parametrize("others", [[], ["validation"]])
def test_a_dataset_with_a_test_split_and_no_training_split_is_evaluated_whole(tmp_path, others):
    for split in ["test", *others]:
        write_folder(tmp_path / "new" / split, ["cat", "dog"], count=6)
    model = cat_model(labels=["cat", "dog", "horse"])[0]
    images = load_images_of(model, dataset=str(tmp_path / "new"))
    assert images.counts() == {"test": [6, 6, 0]}
    assert images.division == "The images of the test split are evaluated."
    stamp(model, dataset=str(tmp_path / "new"))
    with pytest.raises(InputError, match=r"has no training split; its splits: .*test"):
        load_images_of(model)
    with pytest.raises(InputError, match=r"To evaluate a model on all of its images: hfprobe eval --split all\.$"):
        load_images(DataArguments(dataset=str(tmp_path / "new")), seed=0)


def test_a_drawn_test_split_of_another_dataset_is_told(tmp_path, caplog):
    model = cat_model(labels=["cat", "dog"])[0]
    folder = str(write_folder(tmp_path / "new", ["cat", "dog"]))
    load_images_of(model, dataset=folder, whole=True)
    assert "--split all" not in caplog.text
    load_images_of(model, dataset=folder)
    assert f"'{folder}' has no test split, so its test images are a fifth of its images." in caplog.text


@pytest.fixture
def leaky(tmp_path):
    """A folder with 8 test images, 3 of which have a duplicate in train; the images, their audit, and a model of it."""
    write_images(tmp_path / "photos" / "train", first=0)
    images = find(write_images(tmp_path / "photos" / "test", count=4, first=50).parent)
    rows = {name: part["index"][:] for name, part in images.parts.items()}
    groups = [[("train", rows["train"][0]), ("test", 0), ("test", 5)], [("train", rows["validation"][0]), ("test", 1)]]
    audit = save_audit(tmp_path / "audit", images, *groups, [("test", 2), ("test", 3)])
    model, processor = cat_model(labels=["cat", "dog"])
    stamp(model, dataset=str(tmp_path / "photos"), split_seed=0, membership=images.membership)
    return images, audit, {"model": model, "processor": processor, "name": "m", "revision": "r"}


def test_the_accuracy_without_leaked_images_is_measured_with_an_audit(leaky, tmp_path):
    images, audit, how = leaky
    assert evaluate_images(images=images, split="test", **how).provenance.leaks is None
    result = evaluate_images(images=images, split="test", audit=audit, **how)
    assert dataclasses.asdict(result.provenance.leaks) == {
        "audit": audit, "parts": ["train", "validation"], "rows": [0, 1, 5],
    }  # fmt: skip
    found = result.without_leaks
    assert (found.leaked, found.accuracy, found.clean.accuracy) == (3, 0.5, 0.4)  # it answers "cat" to every image
    assert result.summary[-1].startswith(
        "3 of the 8 test images have a duplicate in train or validation. Without them, the accuracy is 40.00% ("
    )
    validation = evaluate_images(images=images, split="validation", audit=audit, **how).provenance.leaks
    assert (validation.parts, validation.rows) == (["train"], [])
    result.save(tmp_path)
    assert EvalResult.load(tmp_path).without_leaks == found


def test_the_audit_of_the_run_is_used_as_long_as_it_can_be_read(leaky, tmp_path, caplog):
    _, audit, how = leaky
    stamp(how["model"], dataset=str(tmp_path / "photos"), split_seed=0, images={"audit": audit})
    again = load_images_of(how["model"])
    assert evaluate_images(images=again, split="test", **how).without_leaks.leaked == 3
    (tmp_path / "audit" / "audit.json").write_text("{}")
    assert evaluate_images(images=again, split="test", **how).without_leaks is None
    assert "The report does not say what leaked images do to the accuracy. The audit" in caplog.text
    (tmp_path / "audit" / "audit.json").unlink()
    (tmp_path / "audit").rmdir()
    assert evaluate_images(images=again, split="test", **how).without_leaks is None
    with pytest.raises(InputError, match="holds no audit"):
        evaluate_images(images=again, split="test", audit=audit, **how)


def test_images_that_were_left_out_of_training_have_not_leaked(leaky, tmp_path):
    images, audit, how = leaky
    kept = load_images(dataclasses.replace(images.arguments, audit=audit, drop_leaks=True), seed=0)
    result = evaluate_images(images=kept, split="test", **how)
    assert result.without_leaks.leaked == 0
    assert result.summary[-1] == "None of the 8 test images has a duplicate in train or validation."


@pytest.mark.parametrize("split", ["test", "all"])
def test_an_audit_says_nothing_of_images_that_are_not_those_of_the_training(leaky, tmp_path, split):
    _, audit, how = leaky
    other = write_images(tmp_path / "other", first=100)
    images = load_images_of(how["model"], dataset=str(other), whole=split == "all")
    expected = (
        "--audit says which images have a duplicate among those that a model was trained on, and this model was not "
        f"trained on '{other}'. Leave it out."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        evaluate_images(images=images, split=split, audit=audit, **how)
