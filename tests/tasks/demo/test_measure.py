import numpy as np
import pytest
import torch

from helpers.image_kinds import KINDS, SIZES
from helpers.models import cat_model
from hfprobe.models.thresholds import Thresholds
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.tasks.demo.measure import GRID, LoadedModel, Models, UnreadableError
from hfprobe.tasks.predict.measure import predict_images


def uneven(**options):
    """A model whose answers differ between pictures."""
    model, processor = cat_model(**options)
    with torch.no_grad():
        model.classifier[-1].bias.zero_()
        model.classifier[-1].weight.mul_(20)
    return model, processor


@pytest.fixture(scope="module")
def network():
    return uneven()


def load(network, **values):
    return Models([LoadedModel("uneven", *network)], **values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_probabilities_are_those_of_predict_to_the_bit(network, kind):
    models = load(network)
    for size in SIZES.values():
        content, _ = KINDS[kind](*size)
        expected = predict_images([content], model=network[0], processor=network[1])
        found = models.answer(content)
        (answer,) = found.answers
        assert np.array_equal(np.float32(answer.probabilities), expected.probabilities[0])
        assert (found.width, found.height) == size
        assert answer.labels == expected.class_names


@pytest.mark.parametrize(("above", "sure"), [(-1e-6, True), (0.0, True), (1e-6, False)])
def test_not_sure_is_decided_by_the_stored_threshold_as_predict_does(above, sure):
    model, processor = uneven()
    content, _ = KINDS["RGB PNG"](64, 64)
    reached = predict_images([content], model=model, processor=processor).confidences[0]
    threshold = float(reached) + above
    chosen = [ChosenThreshold(accuracy, threshold, 300, 400) for accuracy in (0.9, 0.95, 0.98, 0.99)]
    Thresholds(chosen, chosen).stamp(model)
    (answer,) = load((model, processor)).answer(content).answers
    assert (answer.threshold, answer.sure) == (threshold, sure)
    predicted = predict_images([content], model=model, processor=processor, threshold="auto")
    assert predicted.sure.tolist() == [sure]


def test_a_model_without_thresholds_still_answers(network):
    (answer,) = load(network).answer(KINDS["RGB PNG"](64, 64)[0]).answers
    assert (answer.threshold, answer.sure) == (None, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "This picture cannot be read: the file is empty. Choose another one."),
        (b"<svg/>", "This picture cannot be read: not an image. Choose another one."),
        (KINDS["RGB PNG"](64, 64)[0][:-60], "This picture cannot be read: "),
        (KINDS["RGB PNG"](101, 100)[0], "This picture cannot be read: it has 10,100 pixels; allowed: at most 10,000"),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused_in_one_line(network, content, message):
    models = load(network, max_pixels=10_000)
    for call in (models.answer, models.find_decisive, models.check):
        with pytest.raises(UnreadableError) as caught:
            call(content)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_covering_a_square_changes_the_answer_where_the_network_looks(network):
    """A network that reads the mean of the upper left pixels only: no other square matters."""
    model, processor = network
    loaded = LoadedModel("corner", model, processor)

    class Corner(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, pixel_values):
            part = pixel_values[:, :, : pixel_values.shape[2] // GRID, : pixel_values.shape[3] // GRID]
            logits = torch.nn.functional.pad(part.mean(dim=(1, 2, 3))[:, None], (0, 4))
            return type("Output", (), {"logits": logits})

    loaded.model = Corner()
    found = loaded.find_decisive(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8))
    falls = np.array(found.falls)
    assert falls.shape == (GRID, GRID)
    assert falls[0, 0] > 0.1
    assert np.abs(np.delete(falls.ravel(), 0)).max() == 0
    assert found.label == loaded.labels[0]


def test_the_labels_of_several_models_are_named_once():
    first, second = (LoadedModel(name, *cat_model(labels=labels)) for name, labels in (
        ("a", ["cat", "dog"]), ("b", ["dog", "cat", "bird"])
    ))  # fmt: skip
    models = Models([first, second])
    assert models.labels == ["cat", "dog", "bird"]
    assert [answer.model for answer in models.answer(KINDS["L PNG"](32, 32)[0]).answers] == ["a", "b"]
