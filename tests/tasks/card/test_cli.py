import pytest

from helpers.exported import push

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_wrong_flags_are_one_line(fails, tmp_path, dataset_folder):
    rest = ["--report", "reports/cnn", "--output_dir", "card"]
    assert fails("card.py", "--model", "simple-cnn").startswith("the following arguments are required: --report, --out")
    for name in ("cats", "a/b/c", "a/b c"):
        assert fails("card.py", "--model", "simple-cnn", *rest, "--hub_model_id", name) == (
            f"--hub_model_id '{name}' is not a model id. Allowed: owner/name, of letters, digits, '.', '_' and '-'."
        )
    assert fails("card.py", "--model", "simple-cnn", *rest).startswith("No model 'simple-cnn': neither a folder nor")
    model = push(tmp_path / "hub", dataset_folder)
    assert fails("card.py", "--model", model, *rest).startswith(f"--model '{model}' is a folder, whose files may have")
    (tmp_path / "card").mkdir()
    assert fails("card.py", "--model", "simple-cnn", *rest) == (
        "--output_dir 'card' exists already. Pass a new folder, or remove it."
    )
    inside = fails("card.py", "--model", "simple-cnn", *rest[:3], str(model / "card"))
    assert inside.startswith(f"--output_dir '{model}/card' is or lies inside the model folder")
