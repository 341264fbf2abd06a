import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from hfprobe.statistics.confusion import Mistake, choose_confused, find_mistakes, merge_others

CLASSES = 6
ANSWERS = st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * 2), min_size=1, max_size=60)


def dense(labels, predictions):
    return confusion_matrix(labels, predictions, labels=range(CLASSES))


@given(ANSWERS)
def test_the_mistakes_are_the_wrong_cells_of_the_matrix_in_order_of_their_counts(answers):
    labels, predictions = np.transpose(answers)
    matrix = dense(labels, predictions)
    np.fill_diagonal(matrix, 0)
    expected = [Mistake(int(row), int(column), int(matrix[row, column])) for row, column in np.argwhere(matrix)]
    expected.sort(key=lambda mistake: -mistake.count)
    assert find_mistakes(labels, predictions) == expected
    assert find_mistakes(labels, predictions, most=2) == expected[:2]


def test_without_a_mistake_there_is_no_wrong_cell():
    assert find_mistakes(np.arange(5), np.arange(5)) == []


@given(ANSWERS, st.integers(1, CLASSES + 2))
def test_chosen_classes_belong_to_pairs_that_are_confused_at_least_as_often_as_others(answers, most):
    labels, predictions = np.transpose(answers)
    matrix = dense(labels, predictions)
    both = matrix + matrix.T
    np.fill_diagonal(both, 0)
    chosen = choose_confused(labels, predictions, classes=CLASSES, most=most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, CLASSES)
    left = sorted(set(range(CLASSES)) - set(chosen))
    if left:
        assert both[left].max() <= min(both[number].max() for number in chosen)


@given(ANSWERS, st.sets(st.integers(0, CLASSES - 1), min_size=1))
def test_the_matrix_of_chosen_classes_is_a_part_of_the_whole_one_and_keeps_its_sums(answers, chosen):
    labels, predictions = np.transpose(answers)
    chosen, matrix = sorted(chosen), dense(labels, predictions)
    merged = merge_others(labels, predictions, chosen=chosen)
    np.testing.assert_array_equal(merged[:-1, :-1], matrix[np.ix_(chosen, chosen)])
    np.testing.assert_array_equal(merged.sum(axis=1)[:-1], matrix.sum(axis=1)[chosen])
    np.testing.assert_array_equal(merged.sum(axis=0)[:-1], matrix.sum(axis=0)[chosen])
    assert merged.sum() == len(answers)


@pytest.mark.parametrize("most", [2, 3, 10])
def test_classes_without_mistakes_fill_up_the_chosen_ones(most):
    assert choose_confused(np.array([4, 1, 2]), np.array([4, 1, 3]), classes=5, most=most) == [
        [2, 3], [0, 2, 3], [0, 1, 2, 3, 4],
    ][[2, 3, 10].index(most)]  # fmt: skip
