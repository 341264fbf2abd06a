import numpy as np
from datasets import ClassLabel, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hfprobe.data.sources.selected_rows import add_column


@settings(max_examples=30, deadline=None)
@given(taken=st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_a_column_is_added_to_any_selection_and_the_others_are_not_copied(taken):
    rows = Dataset.from_dict({"number": list(range(10))})
    chosen = rows.select(np.array(taken))
    values = [at % 3 for at in range(len(taken))]
    added = add_column(chosen, "label", values, feature=ClassLabel(names=["a", "b", "c"]))
    again = add_column(chosen, "label", values, feature=ClassLabel(names=["a", "b", "c"]))
    assert added.to_dict() == {"number": taken, "label": values}
    assert added.features["label"].names == ["a", "b", "c"]
    assert added._fingerprint == again._fingerprint
    if len(set(taken)) == len(taken):
        assert len(added.data) == (10 if chosen._indices is not None else len(taken))


def test_a_column_is_added_to_columns_of_a_table_in_blocks_that_were_selected():
    rows = Dataset.from_dict({"number": list(range(10))}).add_column("index", list(range(10)))
    chosen = rows.select(np.array([3, 7])).select_columns("number")
    assert add_column(chosen, "label", [1, 0]).to_dict() == {"number": [3, 7], "label": [1, 0]}
