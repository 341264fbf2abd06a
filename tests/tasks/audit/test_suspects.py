import numpy as np
import pytest

from hfprobe.tasks.audit.suspects import assign_folds, out_of_sample_probabilities, rank_suspects


def test_folds_divide_each_class_evenly_and_keep_duplicates_together():
    labels = np.repeat([0, 1], 50)
    groups = np.arange(100)
    groups[[0, 7, 60]] = 7
    folds = assign_folds(labels, groups, folds=5, seed=0)
    assert len(set(folds[[0, 7, 60]])) == 1
    counts = np.stack([np.bincount(folds[labels == label], minlength=5) for label in (0, 1)])
    assert counts.min() >= 8
    assert counts.max() <= 12


def test_a_group_as_large_as_a_class_is_divided():
    labels, groups = np.repeat([0, 1], 20), np.repeat([0, 1], 20)
    folds = assign_folds(labels, groups, folds=5, seed=0)
    assert all(np.bincount(folds[labels == label], minlength=5).min() == 4 for label in (0, 1))


def test_a_probability_does_not_depend_on_the_label_of_its_image():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (generator.normal(size=(60, 5)) + labels[:, None]).astype(np.float32)
    folds = np.arange(60) // 12
    before = out_of_sample_probabilities(features, labels, folds, classes=3)
    labels[55] = (labels[55] + 1) % 3  # in the last fold, so the penalty that the first one chooses may change
    after = out_of_sample_probabilities(features, labels, np.where(folds == 4, 0, folds + 1), classes=3)
    assert before.sum(axis=1) == pytest.approx(np.ones(60))
    assert after.shape == before.shape


def test_flipped_labels_are_the_first_suspects():
    generator = np.random.default_rng(1)
    truth = np.arange(300) % 3
    features = (generator.normal(size=(300, 8)) + 4 * np.eye(3, 8)[truth]).astype(np.float32)
    labels = truth.copy()
    flipped = generator.choice(300, 15, replace=False)
    labels[flipped] = (truth[flipped] + 1) % 3
    folds = assign_folds(labels, np.arange(300), folds=5, seed=0)
    ranked = rank_suspects(out_of_sample_probabilities(features, labels, folds, classes=3), labels)
    assert len(set(ranked[:15]) & set(flipped)) >= 14


def test_suspects_are_ranked_by_the_probability_of_the_given_class():
    probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2]])
    assert rank_suspects(probabilities, np.array([0, 0, 0])).tolist() == [1, 0]
