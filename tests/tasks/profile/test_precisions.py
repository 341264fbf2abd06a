import numpy as np
import pytest
import torch

from helpers.models import stamp
from helpers.runs import small_config
from hfprobe.models.loading import load_model
from hfprobe.statistics.paired import Difference
from hfprobe.tasks.profile import precisions
from hfprobe.tasks.profile.precisions import choose_precision, compare_answers
from hfprobe.tasks.profile.result import Answers
from hfprobe.training.start import run_training


@pytest.fixture(scope="module")
def model_folder(dataset_folder, tmp_path_factory):
    run = run_training(small_config(dataset_folder, tmp_path_factory.mktemp("answers")))
    return run.revision.path


def test_answers_are_compared_on_the_validation_images_of_the_run(model_folder, monkeypatch):
    model, processor = load_model(model_folder)
    split = precisions._load_validation(model, processor)
    taken = []

    def make_step(model, images, *, bf16):
        """In bfloat16, the answer to the first image of each batch is another one."""

        def step():
            taken.append(len(images))
            logits = torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.int64), model.config.num_labels)
            if bf16:
                logits[0] = logits[0].flip(0)
            return logits

        return step

    monkeypatch.setattr(precisions, "make_step", make_step)
    found = compare_answers(model, processor, name="simple-cnn")
    assert sum(taken) == 2 * len(split)
    assert found == Answers(len(split), differing=len(taken) // 2, of="validation", accuracy=found.accuracy)
    firsts = np.array(split.labels[:: precisions.BATCH_SIZE])
    gained = (firsts == model.config.num_labels - 1).sum() - (firsts == 0).sum()
    assert found.accuracy.value == pytest.approx(gained / len(split))


def test_answers_of_a_model_without_its_dataset_are_compared_on_noise(model_folder, dataset_folder, caplog):
    model, processor = load_model(model_folder)
    stamp(model, dataset=str(dataset_folder / "moved"))
    found = compare_answers(model, processor, name="simple-cnn")
    assert found == Answers(precisions.NOISE_ANSWERS, found.differing, of="noise", accuracy=None)
    expected = "The validation images of simple-cnn are not here, so noise is classified: The dataset of this model, "
    assert caplog.messages[-1].startswith(expected)


@pytest.mark.parametrize(
    ("speedup", "differing", "interval", "best"),
    [
        (2, 9, (-0.01, 0.01), "bf16"),
        (2, 9, (-0.02, 0.02), "fp32"),  # too few images to tell
        (2, 0, (-0.2, 0.2), "bf16"),
        (2, 9, (-0.009, -0.001), "fp32"),
        (2, 9, (0.001, 0.009), "fp32"),
        (1.05, 0, (-0.01, 0.01), "fp32"),
        (0.5, 0, (-0.01, 0.01), "fp32"),
        (2, 0, None, "bf16"),
        (2, 1, None, "fp32"),
    ],
)
def test_bfloat16_is_best_if_it_is_clearly_faster_and_gives_the_same_answers(speedup, differing, interval, best):
    accuracy = interval and Difference(0.0, interval, p=1.0)
    assert choose_precision(speedup, Answers(1000, differing, of="validation", accuracy=accuracy)) == best
