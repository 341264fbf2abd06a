import dataclasses
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import precision_recall_fscore_support

from helpers.results import make_result, with_provenance, without_images
from hfprobe.statistics.classification import ClassScores
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.errors import InputError
from hfprobe.system.files import write_json
from hfprobe.tasks.evaluate.result import EvalResult


def test_saved_result_loads_unchanged(tmp_path):
    result = make_result()
    result.save(tmp_path)
    loaded = EvalResult.load(tmp_path)
    for name in ("index", "labels", "probabilities", "predictions"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(result, name))
    assert loaded.class_names == result.class_names
    assert loaded.mistakes == result.mistakes
    assert loaded.provenance == result.provenance
    assert loaded.metrics == result.metrics
    assert not list(tmp_path.glob(".*"))


def test_the_keys_of_metrics_json_are_stable(tmp_path):
    make_result().save(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert set(content) == {
        "class_names", "n", "accuracy", "macro_precision", "macro_recall", "macro_f1", "balanced_accuracy", "per_class",
        "confusion_matrix", "intervals", "baseline", "nll", "brier", "ece", "reliability",
        "provenance", "selectivity", "answered", "without_leaks",
    }  # fmt: skip
    assert set(content["per_class"]["cat"]) == {"precision", "recall", "f1", "support"}
    assert set(content["intervals"]) == {"accuracy", "macro_f1", "balanced_accuracy"}
    assert set(content["reliability"][0]) == {"confidence", "accuracy", "n"}


def test_thresholds_of_the_model_are_saved_with_what_they_give(tmp_path):
    thresholds = [ChosenThreshold(0.9, 0.5, 40, 60), ChosenThreshold(0.99, None, 0, 60)]
    result = with_provenance(make_result(), thresholds=thresholds)
    result.save(tmp_path)
    assert EvalResult.load(tmp_path).answered == result.answered
    content = json.loads((tmp_path / "metrics.json").read_text())
    first, second = content["answered"]
    confidences, correct = result.probabilities.max(axis=1), result.predictions == result.labels
    assert first["chosen"] == {"accuracy": 0.9, "threshold": 0.5, "answered": 40, "n": 60}
    assert first["answered"]["n"] == (confidences >= 0.5).sum()
    assert first["answered"]["accuracy"] == correct[confidences >= 0.5].mean()
    assert (second["answered"], second["coverage_interval"]) == (None, None)
    assert set(content["selectivity"]) == {"aurc", "least_aurc", "curve"}
    assert content["selectivity"]["curve"][-1]["accuracy"] == result.metrics.accuracy


def test_summary_equals_scikit_learn_whichever_classes_occur():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 3, 200), generator.integers(0, 4, 200)  # d is predicted alone, e never
    result = dataclasses.replace(
        make_result("abcde", count=200), labels=labels, probabilities=np.eye(5, dtype=np.float32)[predictions]
    )
    summary = result.metrics
    expected = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
    found = [summary.macro_precision, summary.macro_recall, summary.macro_f1]
    assert found == list(expected[:3])
    assert summary.accuracy == (labels == predictions).mean()
    assert summary.per_class["d"] == ClassScores(0.0, 0.0, 0.0, support=0)
    assert summary.per_class["e"] == ClassScores(None, None, None, support=0)
    matrix = np.array(summary.confusion_matrix)
    assert matrix[1, 3] == ((labels == 1) & (predictions == 3)).sum()
    assert matrix.sum() == summary.n == 200


def test_a_split_that_lacks_a_class_is_saved_and_loaded(tmp_path):
    result = without_images(make_result(), of=2)
    result.save(tmp_path)
    loaded = EvalResult.load(tmp_path)
    assert loaded.metrics == result.metrics
    assert loaded.metrics.per_class["owl"].support == 0
    low, high = loaded.metrics.intervals["macro_f1"]
    assert 0 < low < loaded.metrics.macro_f1 < high < 1


def test_json_never_holds_nan(tmp_path):
    content = {"loss": float("nan"), "list": [1.5, float("inf"), -np.inf, np.float64("nan")], "name": "NaN", "3": None}
    write_json(tmp_path / "some.json", content)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads((tmp_path / "some.json").read_text(), parse_constant=refuse)
    assert found == {"loss": None, "list": [1.5, None, None, None], "name": "NaN", "3": None}


def test_folder_without_an_evaluation_is_an_input_error(tmp_path):
    expected = (
        f"'{tmp_path}' holds no evaluation (metrics.json: No such file or directory). Make it: "
        f"hfprobe eval --model <folder or hub name> --report_dir {tmp_path}"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        EvalResult.load(tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "predictions.parquet", "mistakes.parquet"])
@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_damaged_files_are_input_errors(tmp_path, name, damage):
    make_result().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(InputError, match=r"^The evaluation .+ is damaged: .+\. Make it: hfprobe eval --model"):
        EvalResult.load(tmp_path)


def test_error_names_a_missing_column(tmp_path):
    make_result().save(tmp_path)
    path = tmp_path / "predictions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["probabilities"]), path)
    with pytest.raises(InputError, match=re.escape("is damaged: 'probabilities' is missing. Make it: ")):
        EvalResult.load(tmp_path)


def test_interrupted_save_keeps_the_earlier_result(tmp_path, monkeypatch):
    make_result(seed=0).save(tmp_path)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("hfprobe.tasks.evaluate.result.write_record", fail)
    with pytest.raises(OSError, match="no space left"):
        make_result(seed=1).save(tmp_path)
    assert EvalResult.load(tmp_path).metrics == make_result(seed=0).metrics


def test_predictions_of_another_evaluation_are_detected(tmp_path):
    for seed in (0, 1):
        make_result(seed=seed).save(tmp_path / str(seed))
    (tmp_path / "1" / "predictions.parquet").replace(tmp_path / "0" / "predictions.parquet")
    expected = "is damaged: predictions.parquet and metrics.json are not of the same evaluation. Make it: "
    with pytest.raises(InputError, match=re.escape(expected)):
        EvalResult.load(tmp_path / "0")


def test_every_mistake_must_have_its_image(tmp_path):
    result = make_result()
    first = min(result.mistakes)
    dataclasses.replace(result, mistakes={key: png for key, png in result.mistakes.items() if key != first}).save(
        tmp_path
    )
    with pytest.raises(InputError, match=re.escape(f"is damaged: mistakes.parquet lacks image {first}. Make it: ")):
        EvalResult.load(tmp_path)


def test_probabilities_are_saved_in_chunks_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("hfprobe.tasks.evaluate.result.ROWS_AT_ONCE", 7)
    result = make_result()
    result.save(tmp_path)
    np.testing.assert_array_equal(EvalResult.load(tmp_path).probabilities, result.probabilities)


def test_probabilities_of_another_number_of_classes_are_damaged(tmp_path):
    make_result().save(tmp_path)
    table = pq.read_table(tmp_path / "predictions.parquet")
    lists = table["probabilities"].to_pylist()
    lists[3] = lists[3][:2]
    changed = table.set_column(table.column_names.index("probabilities"), "probabilities", pa.array(lists))
    pq.write_table(changed, tmp_path / "predictions.parquet")
    with pytest.raises(InputError, match="is damaged: "):
        EvalResult.load(tmp_path)
