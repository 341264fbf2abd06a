from helpers.names import AWFUL_MODELS, AWFUL_NAMES, letters, rows, shown
from helpers.results import label_efficiency_of
from hfprobe.tasks.label_efficiency.page import write_label_efficiency


def test_names_with_markup_are_text_in_the_table_of_label_efficiency(tmp_path):
    result = label_efficiency_of(AWFUL_MODELS, class_names=AWFUL_NAMES)
    table = rows(write_label_efficiency(result, tmp_path).read_text())
    assert [letters(cell) for cell in table[0]] == ["imagesperclass", *map(shown, AWFUL_MODELS)]
