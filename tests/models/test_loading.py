"""A model folder is evaluated only where it is complete: every damage is one line that names the file and the value."""

import json
import re
import shutil
from reprlib import repr as shortened

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers.images import CLASSES
from helpers.models import save_model
from hfprobe.data.arguments import IDENTITY
from hfprobe.models.loading import load_model
from hfprobe.models.passport import Passport
from hfprobe.system.errors import InputError

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# Values that no logits depend on, or that may be another without a sign of it.
UNREAD = ("architectures", "auto_map", "transformers_version", "dropout", "backbone_weights", "do_convert_rgb")
UNREAD += ("image_mean", "image_std", "calibration_temperature", "run", "answer_thresholds")


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    return {name: save_model(folder / name, name) for name in ("cnn", "vit")}


@pytest.fixture(scope="module")
def right(intact):
    """Name of a model -> what it is without damage."""
    return {name: load_model(folder) for name, folder in intact.items()}


@pytest.fixture
def copied(intact, tmp_path):
    """Name of a model -> a folder of it that may be damaged."""
    return lambda name: shutil.copytree(intact[name], tmp_path / name)


def edit(file, change):
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def edit_weights(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def refused(folder, reason):
    message = (
        f"'{folder}' does not hold a model that hfprobe can load: {reason}. Pass a folder or a name that "
        "hfprobe train printed."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_model(folder)


POSITIVE, HALVING = "a positive whole number", "positive whole numbers, each halving the image once"
LABELS, LABEL = "a name for each number from 0 on", "one line of text, each name once"
NUMBERS = "the numbers of id2label, {'airplane': 0, 'automobile': 1, 'bird': 2, 'cat': 3, ...}"
MODELS = "hfprobe-simple-cnn, hfprobe-linear-probe"
SIDES = "{'height': 32, 'width': 32}"


@pytest.mark.parametrize(
    ("names", "key", "value", "allowed"),
    [
        ("cnn", "image_size", 0, "a whole number from 1 to 512"),
        ("cnn", "image_size", 513, "a whole number from 1 to 512"),
        ("cnn", "channels", 64, HALVING),
        ("cnn", "channels", [64, 128, True], HALVING),
        ("cnn", "channels", [1, 1, 1, 1, 1, 1], HALVING),
        ("cnn", "hidden_size", 512.0, POSITIVE),
        ("cnn", "dropout", 1.0, "0 <= dropout < 1"),
        ("cnn", "dropout", "0.5", "0 <= dropout < 1"),
        ("vit", "feature_size", "512", POSITIVE),
        ("vit", "backbone", None, "text"),
        ("vit", "backbone", "hf-hub:a/b", "a name in timm.list_models()"),
        ("vit", "backbone_weights", 1, "text"),
        ("vit", "second_pooling", "median", "None, token, mean, max"),
        ("vit", "pooling", "both", "default"),
        ("vit", "normalize", "yes", "True, False"),
        ("vit", "backbone_sha256", "ab", "64 hexadecimal digits"),
        ("cnn vit", "model_type", "vit", MODELS),
        ("cnn vit", "model_type", ["vit"], MODELS),
        ("cnn vit", "id2label", None, LABELS),
        ("cnn vit", "id2label", CLASSES, LABELS),
        ("cnn vit", "id2label", {"1": "a", "2": "b"}, LABELS),
        ("cnn vit", "id2label", {"0": "a", "1.0": "b"}, LABELS),
        ("cnn vit", "label2id", None, NUMBERS),
        ("cnn vit", "label2id", {"a": 0}, NUMBERS),
        ("cnn vit", "num_labels", 4, "5, as in id2label"),
        ("cnn vit", "dtype", "float16", "'float32'"),
        ("cnn vit", "calibration_temperature", 0, "0.001 to 1000"),
        ("cnn vit", "calibration_temperature", -1.5, "0.001 to 1000"),
        ("cnn vit", "calibration_temperature", float("nan"), "0.001 to 1000"),
        ("cnn vit", "calibration_temperature", True, "0.001 to 1000"),
    ],
)
def test_error_names_an_invalid_value_of_the_config(copied, names, key, value, allowed):
    for name in names.split():
        folder = copied(name)
        load_model(folder)
        edit(folder / CONFIG, lambda values: values.update({key: value}))
        refused(folder, f"{CONFIG}: {key} is {shortened(value)}; allowed: {allowed}")


EDITS = {"splits": {"train": {"rows": 9, "digest": ""}}, "labels": {}, "moved": {}, "groups": 0, "dropped": {}}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", "42", "'seed' is '42'; allowed: a whole number"),
        ("split_seed", -1, "the seeds are 42 and -1; allowed: 0 or more"),
        ("seconds", "1", "'seconds' is '1'; allowed: a number, or null"),
        ("dataset", 1, "'dataset' is 1; allowed: a string"),
        ("images", {"crop": "shift"}, f"'images.crop' is unknown; allowed: {', '.join(IDENTITY)}"),
        ("images", {"max_pixels": "9"}, "it is '9'; allowed: a whole number, or null"),
        ("membership", {"train": {}}, "'membership.train.own' is missing"),
        ("membership", {}, "'membership' has ; allowed: train, validation, test"),
        ("edits", EDITS | {"moved": {"train": {"1": "dev"}}}, "'moved' has dev; allowed: train, validation, test"),
        ("edits", EDITS | {"dropped": {"train": {"9": "test"}}}, "'train' has no row 9; allowed: less than 9"),
        ("edits", EDITS | {"labels": {"train": []}}, "'edits.labels.train' is []; allowed: a JSON object"),
        ("more", 1, f"'more' is unknown; allowed: {', '.join(Passport.__dataclass_fields__)}"),
    ],
)
def test_error_names_an_invalid_value_of_the_passport(copied, key, value, said):
    folder = copied("cnn")
    edit(folder / CONFIG, lambda values: values["run"].update({key: value}))
    refused(folder, f"{CONFIG}: run: {said}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "it is []; allowed: a JSON object"),
        ({"plain": []}, "'calibrated' is missing"),
        ({"plain": [], "calibrated": []}, "the thresholds are for ; allowed: 0.9, 0.95, 0.98, 0.99"),
        (
            {"plain": [{"accuracy": 0.9, "threshold": "1", "answered": 1, "n": 2}], "calibrated": []},
            "'plain.0.threshold' is '1'; allowed: a number, or null",
        ),
        (
            {"plain": [{"accuracy": 0.9, "threshold": 1.5, "answered": 1, "n": 2}], "calibrated": []},
            "ChosenThreshold(accuracy=0.9, threshold=1.5, answered=1, n=2) is not a threshold; allowed: probabilities, "
            "and at most as many images as there are",
        ),
    ],
)
def test_error_names_an_invalid_threshold(copied, value, said):
    folder = copied("cnn")
    edit(folder / CONFIG, lambda values: values.update(answer_thresholds=value))
    refused(folder, f"{CONFIG}: answer_thresholds: {said}")


def test_a_model_without_a_passport_is_loaded_and_a_passport_without_an_entry_is_refused(copied):
    folder = copied("cnn")
    edit(folder / CONFIG, lambda values: values.update(run={"seed": 42}))
    refused(folder, f"{CONFIG}: run: 'recipe' is missing")
    edit(folder / CONFIG, lambda values: values.pop("run"))
    assert Passport.of(load_model(folder)[0]) is None


@pytest.mark.parametrize("label", ["cat", 7, "", "two\nlines"])
def test_invalid_label_name_is_refused(copied, label):
    folder = copied("vit")
    edit(folder / CONFIG, lambda values: values["id2label"].update({"4": label}))
    refused(folder, f"{CONFIG}: id2label has the name {label!r}; allowed: {LABEL}")


@pytest.mark.parametrize(
    ("names", "key", "value", "allowed"),
    [
        ("cnn vit", "image_mean", None, "3 numbers from 0 to 1"),
        ("cnn vit", "image_mean", [0.5, 0.5], "3 numbers from 0 to 1"),
        ("cnn vit", "image_mean", [0.5, 0.5, float("nan")], "3 numbers from 0 to 1"),
        ("cnn vit", "image_std", 0.5, "3 numbers from 0.001 to 1"),
        ("cnn vit", "image_std", [0.5, 0.5, 0], "3 numbers from 0.001 to 1"),
        ("cnn vit", "image_std", [0.5, 0.5, "0.5"], "3 numbers from 0.001 to 1"),
        ("cnn", "image_processor_type", "CLIPImageProcessor", "ViTImageProcessor"),
        ("cnn", "size", {"height": 32, "width": -1}, SIDES),
        ("cnn", "size", {"height": 64, "width": 64}, SIDES),
        ("cnn", "size", {"height": 32.0, "width": 32}, SIDES),
        ("cnn", "resample", 9, "2"),
        ("cnn", "do_resize", False, "True"),
        ("cnn", "do_normalize", 1, "True"),
        ("cnn", "do_center_crop", True, "None"),
        ("cnn", "rescale_factor", 1, "0.00392156862745098"),
    ],
)
def test_error_names_an_invalid_value_of_the_image_processor(copied, names, key, value, allowed):
    for name in names.split():
        folder = copied(name)
        edit(folder / PROCESSOR, lambda values: values.update({key: value}))
        refused(folder, f"{PROCESSOR}: The image processor's {key} is {shortened(value)}; allowed: {allowed}")


KEY = {"cnn": "classifier.4.weight", "vit": "head.weight"}
BUFFER = {"cnn": "features.1.running_var", "vit": "backbone.stem.bn.running_var"}


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_weights_must_be_exactly_those_of_the_model(copied, name):
    folder = copied(name)
    file = folder / WEIGHTS
    original = file.read_bytes()

    def damaged(change, reason):
        file.write_bytes(original)
        edit_weights(file, change)
        refused(folder, reason)

    for key in (KEY[name], BUFFER[name], BUFFER[name].replace("running_var", "num_batches_tracked")):
        damaged(lambda weights, key=key: weights.pop(key), f"{WEIGHTS} does not match {CONFIG}; missing: {key}")
    damaged(
        lambda weights: weights.update(extra=torch.zeros(1)), f"{WEIGHTS} does not match {CONFIG}; unexpected: extra"
    )
    key, size = KEY[name], {"cnn": 512, "vit": 256}[name]
    shape = f"different shape: {key} (3, {size}) instead of (5, {size})"
    damaged(lambda weights: weights.update({key: torch.zeros(3, size)}), f"{WEIGHTS} does not match {CONFIG}; {shape}")
    types = f"different dtype: {key} torch.float16 instead of torch.float32"
    damaged(lambda weights: weights.update({key: weights[key].half()}), f"{WEIGHTS} does not match {CONFIG}; {types}")
    for value in (float("nan"), float("inf")):
        damaged(
            lambda weights, value=value: weights[key].__setitem__((2, 1), value),
            f"{WEIGHTS}: {key} holds values that are not finite",
        )


def test_head_for_other_labels_is_refused(copied):
    folder = copied("cnn")
    names = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    edit(folder / CONFIG, lambda values: values.update(names))
    shapes = "classifier.4.weight (5, 512) instead of (2, 512), classifier.4.bias (5,) instead of (2,)"
    refused(folder, f"{WEIGHTS} does not match {CONFIG}; different shape: {shapes}")


def test_sizes_beyond_any_memory_are_refused_before_allocation(copied):
    folder = copied("cnn")
    edit(folder / CONFIG, lambda values: values.update(hidden_size=10**9))
    with pytest.raises(InputError, match=re.escape("classifier.1.weight (512, 4096) instead of (1000000000, 4096), ")):
        load_model(folder)


@pytest.mark.parametrize("damage", ["weights", "checksum", "no checksum"])
def test_backbone_must_match_its_checksum(copied, damage):
    folder = copied("vit")
    right = json.loads((folder / CONFIG).read_text())["backbone_sha256"]
    found = right
    if damage == "weights":
        edit_weights(folder / WEIGHTS, lambda weights: weights["backbone.stem.conv.weight"][0, 0, 0, 0].mul_(-1))
    else:
        found = None if damage == "no checksum" else right[::-1]
        edit(folder / CONFIG, lambda values: values.update(backbone_sha256=found))
    with pytest.raises(InputError, match=re.escape(f"{WEIGHTS} does not match {CONFIG}; the SHA-256 of ")) as refused:
        load_model(folder)
    assert f"expected: {found}, the one in the config" in str(refused.value)


def test_sharded_folder_is_checked_in_the_same_way(tmp_path):
    folder = save_model(tmp_path / "model", max_shard_size="2MB")
    whole = save_model(tmp_path / "whole")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    with torch.no_grad():
        assert torch.equal(load_model(folder)[0](PIXELS).logits, load_model(whole)[0](PIXELS).logits)
    shard = next(file for file in shards if BUFFER["cnn"] in load_file(file))
    edit_weights(shard, lambda weights: weights.pop(BUFFER["cnn"]))
    refused(folder, f"{WEIGHTS} does not match {CONFIG}; missing: {BUFFER['cnn']}")
    shard.unlink()
    with pytest.raises(InputError, match=re.escape(f"'{folder}' does not hold a model that hfprobe can load: ")):
        load_model(folder)


@pytest.mark.parametrize("name", ["cnn", "vit"])
@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, PROCESSOR])
def test_missing_truncated_or_empty_file_is_an_input_error(copied, name, file):
    folder = copied(name)
    content = (folder / file).read_bytes()
    for damaged in (None, b"", content[: len(content) // 2], b"[1]", b"\xff\xfe", b"[" * 100_000):
        (folder / file).unlink() if damaged is None else (folder / file).write_bytes(damaged)
        with pytest.raises(InputError, match=re.escape(f"a model that hfprobe can load: {file}")):
            load_model(folder)


def test_other_files_that_transformers_would_read_are_ignored_or_refused(copied):
    folder = copied("cnn")
    with torch.no_grad():
        expected = load_model(folder)[0](PIXELS).logits
    edit(folder / CONFIG, lambda values: values.update(transformers_weights="other.safetensors"))
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
    with torch.no_grad():
        assert torch.equal(load_model(folder)[0](PIXELS).logits, expected)
    (folder / "processor_config.json").write_text('{"image_processor": {"size": {"height": 8, "width": 8}}}')
    refused(folder, f"the folder holds processor_config.json; allowed: {PROCESSOR} only")


def places(values, path=()):
    """The path of every value in nested objects and lists."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -(10**400), 2**63]), st.floats(), st.text(),
    st.lists(st.integers(), max_size=4), st.lists(st.floats(), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)  # fmt: skip
REMOVED = object()


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_any_damaged_value_is_a_one_line_error_or_has_no_effect(intact, right, name, data, tmp_path):
    folder = shutil.copytree(intact[name], tmp_path / "model", dirs_exist_ok=True)
    file = data.draw(st.sampled_from([CONFIG, PROCESSOR]))
    values = json.loads((folder / file).read_text())
    path = data.draw(st.sampled_from(sorted(places(values), key=str)))
    value = data.draw(ANYTHING | st.just(REMOVED))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    (folder / file).write_text(json.dumps(values))
    message = None
    try:
        model, processor = load_model(folder)
    except InputError as error:
        message = str(error)
    if message is not None:
        assert message.startswith(f"'{folder}' does not hold a model that hfprobe can load: ")
        assert file in message
        assert len(message.splitlines()) == 1
        return
    right_model, right_processor = right[name]
    with torch.no_grad():
        assert torch.equal(model(PIXELS).logits, right_model(PIXELS).logits)
    assert model.config.id2label == right_model.config.id2label
    if path[0] not in UNREAD:
        assert value is REMOVED or json.dumps(values) == json.dumps(json.loads((intact[name] / file).read_text()))
        found, expected = (json.loads(one.to_json_string()) for one in (processor, right_processor))
        assert found == expected
