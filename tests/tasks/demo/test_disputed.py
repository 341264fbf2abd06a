from dataclasses import replace

import numpy as np
import pytest

from helpers.models import refused
from helpers.results import PNG, make_result, with_provenance
from hfprobe.pages.figures import data_uri
from hfprobe.tasks.demo.disputed import SHOWN, find_disputed


@pytest.fixture
def save(tmp_path):
    def run(name, result):
        result.save(tmp_path / name)
        return tmp_path / name

    return run


def answering(answers, confidence):
    """An evaluation with these answers, and this confidence of each; the classes are a, b and c."""
    result = make_result(class_names=["a", "b", "c"], count=len(answers))
    others = (1 - np.array(confidence))[:, None] / 2
    probabilities = np.where(np.eye(3)[answers] == 1, np.array(confidence)[:, None], others).astype(np.float32)
    wrong = result.index[np.array(answers) != result.labels].tolist()
    return replace(result, probabilities=probabilities, mistakes=dict.fromkeys(wrong, PNG))


def test_more_answers_come_first_then_the_surest_and_agreement_is_left_out(save):
    # The labels are 0 1 2 0 1 2. The images 0 and 5 have the same answer twice or three times.
    folders = [
        save("one", answering([0, 1, 2, 0, 0, 2], [0.9, 0.6, 0.9, 0.9, 0.9, 0.9])),
        save("two", answering([0, 0, 1, 1, 1, 2], [0.9, 0.9, 0.7, 0.9, 0.8, 0.9])),
        save("three", answering([0, 1, 0, 1, 1, 2], [0.9, 0.9, 0.9, 0.9, 0.9, 0.9])),
    ]
    found = find_disputed(folders)
    assert [(item.name, item.true) for item in found] == [
        ("image 20", "c"), ("image 30", "a"), ("image 40", "b"), ("image 10", "b"),
    ]  # fmt: skip
    assert {item.image for item in found} == {data_uri(PNG)}


def test_the_order_of_the_classes_does_not_matter(save):
    result = make_result()
    turned = replace(
        result,
        class_names=result.class_names[::-1],
        labels=2 - result.labels,
        probabilities=result.probabilities[:, ::-1],
    )
    assert find_disputed([save("one", result), save("two", turned)]) == []


def test_only_some_are_shown(save):
    assert len(find_disputed([save("one", make_result()), save("two", make_result(seed=1))])) == SHOWN


def test_without_evaluations_nothing_is_offered():
    assert find_disputed([]) == []


def test_one_evaluation_or_other_images_are_refused(save):
    one = save("one", make_result())
    refused(lambda: find_disputed([one]), "--reports needs two or more evaluations: with one, no models can disagree.")
    other = save("other", with_provenance(make_result(), images_fingerprint="f" * 64))
    refused(lambda: find_disputed([one, other]), "are not evaluations of the same images. Evaluate the models on the ")
