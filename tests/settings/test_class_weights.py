import json

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from hfprobe.cli.run_flags import parse_run
from hfprobe.settings.class_weights import (
    check_class_names,
    find_class_weights,
    read_class_weights,
    weights_in_loss,
)
from hfprobe.settings.files import read_config_file, write_config_file
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError

COUNTS = np.array([30, 10, 5])


def test_balanced_weights_equal_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], COUNTS)
    found = find_class_weights("balanced", class_names=["cat", "dog", "owl"], images_per_class=COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert found == dict(zip(["cat", "dog", "owl"], expected, strict=True))
    np.testing.assert_allclose(weights_in_loss(found, images_per_class=COUNTS), expected, rtol=1e-15)


def test_a_class_that_is_not_named_has_the_weight_one():
    found = find_class_weights({"owl": 3.0}, class_names=["cat", "dog", "owl"], images_per_class=COUNTS)
    assert found == {"cat": 1, "dog": 1, "owl": 3}
    in_loss = weights_in_loss(found, images_per_class=COUNTS)
    assert in_loss @ COUNTS == pytest.approx(COUNTS.sum())  # mean 1 over the images
    np.testing.assert_allclose(in_loss / in_loss[0], [1, 1, 3])


def test_without_class_weights_there_are_none():
    for given in ("none", None):
        assert read_class_weights(given) == "none"
    assert find_class_weights("none", class_names=["cat", "dog"], images_per_class=COUNTS) is None
    assert weights_in_loss(None, images_per_class=COUNTS) is None


def test_weights_come_from_text_from_a_file_and_from_a_dict(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text('{"cat": 2, "dog": 0.5}')
    for given in ('{"cat": 2, "dog": 0.5}', ' {"cat": 2, "dog": 5e-1}', str(file), {"cat": 2, "dog": 0.5}):
        assert read_class_weights(given) == {"cat": 2.0, "dog": 0.5}
    assert read_class_weights('{"cafe\\u0301": 2}') == {"caf\u00e9": 2}  # as names of classes are


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("balance", "--class_weights is balance; allowed: none, balanced, a JSON object such as '{\"cat\": 2}', or a "),
        ("{cat: 2}", "--class_weights '{cat: 2}' is not JSON; allowed: none, balanced,"),
        ("{}", "--class_weights is {}; allowed: none, balanced,"),
        ({}, "--class_weights is {}; allowed: none, balanced,"),
        (
            '{"cat": 0}',
            "--class_weights of class 'cat' is 0; allowed: a number, more than 0, at most 1,000,000. To train ",
        ),
        ('{"cat": -1}', "--class_weights of class 'cat' is -1; allowed: a number, more than 0"),
        ('{"cat": NaN}', "--class_weights of class 'cat' is nan; allowed: a number, more than 0"),
        ('{"cat": Infinity}', "--class_weights of class 'cat' is inf; allowed: a number, more than 0"),
        ('{"cat": 1e99}', "--class_weights of class 'cat' is 1e+99; allowed: a number, more than 0"),
        ('{"cat": "2"}', "--class_weights of class 'cat' is 2; allowed: a number"),
        ('{"cat": true}', "--class_weights of class 'cat' is True; allowed: a number"),
        ('{"cat": null}', "--class_weights of class 'cat' is None; allowed: a number"),
        ('{"cat": [1]}', "--class_weights of class 'cat' is [1]; allowed: a number"),
        ('{"cat": 1, "cat": 2}', "--class_weights names the class 'cat' twice; allowed: each class once."),
        ('{"caf\u00e9": 1, "cafe\u0301": 2}', "' twice; allowed: each class once."),
        ({1: 2}, "--class_weights names the class 1; allowed: a string. Put it in quotes."),
        ("[1, 2]", "--class_weights is [1, 2]; allowed: none, balanced,"),
        ("{" * 100_000, "is not JSON; allowed: none, balanced,"),
        ("x" * 5000, "--class_weights is xxxxx"),
        ("none\0", "--class_weights is none"),
    ],
)
def test_unusable_class_weights_are_a_one_line_error(given, message):
    with pytest.raises(InputError) as error:
        read_class_weights(given)
    assert message in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.hostile
@pytest.mark.parametrize("content", [b"[1]", b"", b"\xff\xfe", b'{"cat": -2}', b"balanced"])
def test_a_file_without_weights_is_a_one_line_error(tmp_path, content):
    file = tmp_path / "weights.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"^--class_weights "):
        read_class_weights(str(file))


def test_a_class_that_the_images_lack_is_refused_with_near_misses():
    names = ["airplane", "cat", "dog"]
    with pytest.raises(InputError) as error:
        find_class_weights({"airplan": 2.0}, class_names=names, images_per_class=COUNTS)
    assert str(error.value) == "--class_weights names the unknown class 'airplan'. Did you mean airplane?"
    with pytest.raises(InputError) as error:
        check_class_names({"xyz": 2.0}, class_names=names)
    assert str(error.value) == "--class_weights names the unknown class 'xyz'. The classes are airplane, cat, dog."
    check_class_names({"cat": 2.0}, class_names=names)
    check_class_names("balanced", class_names=names)


def test_the_weights_are_part_of_the_settings_that_repeat_a_run(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text('{"cat": 2}')
    config = parse_run(["--class_weights", str(file)])
    assert config.training.class_weights == {"cat": 2.0}
    write_config_file(tmp_path / "config.yaml", config.to_settings())
    file.unlink()  # the run does not depend on it any more
    again = make_run(**read_config_file(tmp_path / "config.yaml"))
    assert again.training.class_weights == {"cat": 2.0}
    assert json.loads(json.dumps(again.to_dict()))["training"]["class_weights"] == {"cat": 2.0}
    assert make_run(class_weights={"cat": 2}).training.class_weights == {"cat": 2.0}
    assert "class_weights" not in make_run().to_settings()
    assert make_run(class_weights="balanced").to_settings()["class_weights"] == "balanced"
