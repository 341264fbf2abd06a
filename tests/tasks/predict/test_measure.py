import logging
import re
import threading
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from helpers.images import CLASSES, draw_images
from helpers.models import cat_model
from hfprobe.system.errors import InputError
from hfprobe.tasks.predict import measure as predict
from hfprobe.tasks.predict.measure import predict_images
from hfprobe.tasks.predict.result import Predictions


@pytest.fixture(scope="module")
def model():
    model, processor = cat_model()
    return {"model": model, "processor": processor}


@pytest.fixture
def files(tmp_path):
    """Ten images; the third and the last are damaged."""
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path, image in zip(paths, draw_images(10, classes=5)[0], strict=True):
        PIL.Image.fromarray(image).save(path)
    paths[2].write_text("no image")
    paths[9].unlink()
    return paths


def test_unreadable_images_are_skipped_and_named_where_asked(model, files):
    predictions = predict_images(files, **model, skip_unreadable=True)
    good = [path for number, path in enumerate(files) if number not in (2, 9)]
    assert predictions.names == [str(path) for path in good]
    assert predictions.unreadable == {str(files[2]): "not an image", str(files[9]): "No such file or directory"}
    np.testing.assert_array_equal(predictions.probabilities, predict_images(good, **model).probabilities)
    with pytest.raises(
        InputError, match=re.escape("2.png' cannot be read: not an image. Replace it, or leave it out.")
    ):
        predict_images(files, **model)


def test_no_readable_image_gives_no_row(model, files):
    predictions = predict_images(files[2], **model, skip_unreadable=True)
    assert predictions.probabilities.shape == (0, 5)
    assert (predictions.names, predictions.labels, predictions.top(2)) == ([], [], [])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_images_keep_their_order_in_batches_of_every_size(model, monkeypatch, count):
    images = draw_images(count, classes=5)[0]
    expected = np.concatenate([predict_images(image, **model).probabilities for image in images])
    monkeypatch.setattr(predict, "BATCH_SIZE", 4)
    monkeypatch.setattr(predict, "AHEAD", 3)
    predictions = predict_images(images, **model)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    assert predictions.names == [f"image {number}" for number in range(count)]


def test_only_a_few_images_are_decoded_before_the_model_needs_them(model, monkeypatch):
    decoded, ahead, lock = 0, [], threading.Lock()
    read = predict._read

    def count(item, **settings):
        nonlocal decoded
        with lock:
            decoded += 1
        return read(item, **settings)

    def forward(module, inputs, settings):
        ahead.append(decoded)

    monkeypatch.setattr(predict, "BATCH_SIZE", 4)
    monkeypatch.setattr(predict, "AHEAD", 8)
    monkeypatch.setattr(predict, "_read", count)
    hook = model["model"].register_forward_pre_hook(forward, with_kwargs=True)
    try:
        predict_images(draw_images(40, classes=5)[0], **model)
    finally:
        hook.remove()
    assert all(found <= 4 * number + 8 for number, found in enumerate(ahead, start=1))
    assert len(ahead) == 10


def test_unusual_values_are_logged_as_by_an_evaluation(model, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hfprobe")
    PIL.Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "a.png")
    predict_images([tmp_path / "a.png"] * 2, **model)
    assert "16-bit files with values of at most 4,095 were read as 12-bit (2 of 2 images)." in caplog.text


def test_the_most_probable_classes_and_sureness():
    shares = np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]], dtype=np.float32)
    predictions = Predictions(["a", "b", "c"], ["x", "y"], shares)
    assert predictions.top(1) == [[("b", pytest.approx(0.6))], [("a", 0.5)]]
    assert [[label for label, _ in row] for row in predictions.top(9)] == [["b", "c", "a"], ["a", "b", "c"]]
    assert predictions.sure.tolist() == [True, True]
    assert replace(predictions, threshold=0.55).sure.tolist() == [True, False]


def test_classes_are_those_of_the_model(model):
    assert predict_images(draw_images(1, classes=5)[0], **model).class_names == CLASSES
