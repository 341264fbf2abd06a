import contextlib
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard
from transformers import AutoConfig
from transformers.training_args import OptimizerNames

from helpers.models import CARD
from helpers.names import AWFUL_NAMES, PARSER, letters, rows
from hfprobe.hub.model_card import render_card
from hfprobe.system.markdown import printable


def test_model_card_shows_values_as_typed_and_omits_unset_ones():
    settings = {"optim": OptimizerNames.ADAMW_TORCH, "lr_scheduler_kwargs": None, "warmup_steps": 0}
    card = render_card(name="hfprobe/simple-cnn", card=CARD | {"settings": settings})
    assert "| optim | adamw_torch |\n| warmup_steps | 0 |\n" in card
    assert "None" not in card


def test_the_table_of_metrics_has_the_baseline_beside_the_model():
    result = replace(CARD["result"], baseline=replace(CARD["result"].baseline, answer="a|b"))
    metrics = {"macro-F1": "macro_f1", "balanced accuracy": "balanced_accuracy", "accuracy": "accuracy"}
    card = render_card(name="hfprobe/m", card=CARD | {"metrics": metrics, "result": result})
    found = rows(card.split("---\n", 2)[2])
    assert found[:4] == [
        ["metric", "validation (n = 4 images)", "always answering a|b"],
        ["macro-F1", "90.00 %", "6.67 %"],
        ["balanced accuracy", "91.00 %", "20.00 %"],
        ["accuracy", "91.25 %", "20.00 %"],
    ]


@pytest.mark.parametrize(
    "dataset",
    [
        "uoft-cs/cifar10", "my: images, v[2]", 'it\'s "mine" & <yours>', "caf\xe9", "😀", "𠮷野家", "a\\b",
        "two\nlines", "a\n---\nb", "null", "yes", "1e3", "0x10", "2024-01-01", "1_000", "~", "- a", "# a", "!!x", "*a",
        "", " a ", "\x00\x07\x7f\x85\x9f", "\u2028", "\ufeffa", "\ufffe", "x" * 500 + " y" * 200,
    ],
)  # fmt: skip
def test_model_card_header_holds_any_dataset_name(dataset):
    text = render_card(name="hfprobe/simple-cnn", card=CARD | {"dataset": dataset})
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])
    assert header["datasets"] == [dataset]
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == dataset
    assert ModelCard(text).data.datasets == [dataset]


@pytest.mark.parametrize(("dataset", "written"), [("1e3", "1e3"), ("0o17", "0o17"), ("😀", "\\U0001F600")])
def test_names_in_the_card_header_are_strings_in_yaml_1_1_and_1_2(dataset, written):
    assert f'\ndatasets:\n- "{written}"\n' in render_card(name="hfprobe/m", card=CARD | {"dataset": dataset})


def test_invalid_unicode_in_a_name_does_not_stop_a_push(tmp_path):
    card = CARD | {"dataset": "caf\udce9", "class_names": ["caf\udce9"], "source": "caf\udce9"}
    text = render_card(name="hfprobe/m", card=card)
    assert yaml.safe_load(text.split("---")[1])["datasets"] == ["caf\\udce9"]
    text.encode()


def test_markup_in_names_is_plain_text_in_the_model_card():
    card = CARD | {"class_names": AWFUL_NAMES, "source": "folder <x>|`y`", "settings": {"a|b": "c|`d`", "e": ["<f>"]}}
    body = render_card(name="hfprobe/simple-cnn", card=card).split("---\n", 2)[2]
    assert ["a|b", "c|`d`"] in rows(body)
    assert ["e", "['<f>']"] in rows(body)
    (data,) = [token for token in PARSER.parse(body) if token.type == "inline" and "Fingerprint" in token.content]
    assert {child.type for child in data.children} == {"text", "softbreak", "code_inline"}
    said = letters("".join(child.content for child in data.children if child.type == "text"))
    assert (
        f"Classes:{','.join(letters(printable(name)) for name in AWFUL_NAMES)}.Source:folder<x>|`y`.Images:8for" in said
    )


def test_underscores_of_a_name_are_not_escaped_in_code():
    card = render_card(name="hfprobe/my_cnn_", card=CARD)
    assert '\n- name: "hfprobe/my_cnn_"\n' in card
    assert "`hfprobe eval --model hfprobe/my_cnn_`" in card
    assert 'from_pretrained("hfprobe/my_cnn_", cache_dir=' in card


def test_statement_for_an_installed_hfprobe_registers_the_models():
    statement = re.search(r"`(import hfprobe[^`]*)`", render_card(name="hfprobe/m", card=CARD))[1]
    exec(statement, {})
    assert AutoConfig.for_model("hfprobe-simple-cnn").model_type == "hfprobe-simple-cnn"


def test_model_card_names_numbers_data_and_recipe(pushed):
    _, _, revision = pushed
    card = (revision.path / "README.md").read_text()
    for expected in ("accuracy | 91.25 %", "n = 4", "a test", "0" * 64, "`fast`", "learning_rate | 0.002", "2,471,941"):
        assert expected in card
    header = yaml.safe_load(card.split("---")[1])
    assert header["model-index"][0]["results"][0]["metrics"][0] == {
        "type": "accuracy",
        "value": 0.9125,
        "name": "accuracy",
    }
    assert [metric.metric_value for metric in ModelCard(card).data.eval_results] == [0.9125, 0.9]


def test_only_a_card_of_a_model_on_a_hub_backbone_names_a_base_model():
    for known, expected in (({}, None), ({"base_model": "timm/x"}, "timm/x")):
        assert ModelCard(render_card(name="hfprobe/x", card=CARD | known)).data.base_model == expected


def test_model_card_of_a_local_folder_is_valid_for_the_hub(server):
    api = HfApi(token="hf_good")
    for local, lists in ((True, False), (False, True)):
        card = render_card(name="hfprobe/x", card=CARD | {"dataset": "/my images", "local_dataset": local})
        assert ("datasets:" in card) is lists
        with pytest.raises(ValueError, match="is not valid") if lists else contextlib.nullcontext():
            api.create_repo("someone/x", exist_ok=True)
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="someone/x")
