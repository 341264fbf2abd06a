"""Which values of a label column are classes, and which stand for no label."""

import numpy as np
import pyarrow as pa
import pytest

from hfprobe.data.sources.labels import read_labels


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["dog", "", "cat", "  ", None, "?", "nan", "NaN", "<NA>"], ["cat", "dog"], [1, -1, 0, -1, -1, -1, -1, -1, -1]),
        (["dog", "-1", "cat", " -1.0"], ["cat", "dog"], [1, -1, 0, -1]),
        (["none", "NA", "Nan"], ["NA", "Nan", "none"], [2, 0, 1]),  # words that may be classes
        ([1, -1, 0, None], ["0", "1"], [1, -1, 0, -1]),
        ([-2, -1, 0], ["-2", "-1", "0"], [0, 1, 2]),  # a scale
        ([10.0, 2.0, float("nan"), None, -1.0], ["2", "10"], [1, 0, -1, -1, -1]),
        ([0.5, 1.5, float("nan")], ["0.5", "1.5"], [0, 1, -1]),
        (["10", "2.0", "2", "", "nan"], ["2", "10"], [1, 0, 0, -1, -1]),
        (["007", "7"], ["007", "7"], [0, 1]),
        ([True, False, None], ["false", "true"], [1, 0, -1]),
        ([None, None], [], [-1, -1]),
        ([], [], []),
    ],
)
def test_values_that_are_no_class_are_no_label_and_whole_numbers_are_classes_in_their_order(values, names, numbers):
    for array in (pa.array(values), pa.array(values).dictionary_encode()):
        found, labels = read_labels(array, None, dataset="d", column="label")
        assert (found, labels.tolist()) == (names, numbers)
        assert labels.dtype == np.int64
