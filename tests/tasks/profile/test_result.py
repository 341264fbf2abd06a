import copy
import json
import re

import pytest

from helpers.results import network_of, planted, profile_of
from hfprobe.models import build_model, find_family
from hfprobe.models.network import describe_network
from hfprobe.system.errors import InputError
from hfprobe.tasks.compare.measure import compare, save_comparison
from hfprobe.tasks.compare.page import write_comparison
from hfprobe.tasks.profile.result import load_profile


def evaluated(**networks):
    """Evaluations of these networks: name -> result."""
    results = {name: planted(0.9 - number / 10, seed=number) for number, name in enumerate(networks)}
    for name, network in networks.items():
        results[name].provenance.update(model=f"hfprobe/{name}", parameters=network["parameters"], network=network)
    return results


def profiled(*, best="fp32"):
    """Profile of networks with 1 and 2 parameters, of the models `one` and `two`; `two` is 80 times as fast in bf16."""
    profile = profile_of(one=(1, 1.0), two=(2, 2.0))
    fast = {"n": 5, "latency_ms": {"p50": 1, "p95": 2}, "throughput": {"median": 64_000}}
    answers = {"differing": 3, "images": 1000, "of": "validation"}
    profile["models"]["one"]["bf16"] = {"best": "fp32", "batch": fast, **answers}
    profile["models"]["two"]["bf16"] = {"best": best, "batch": fast, **answers}
    for model in profile["models"].values():
        model.update(folder="0123abcd")  # the revision of the evaluations
    return profile


@pytest.mark.parametrize("best", ["fp32", "bf16"])
def test_a_comparison_shows_the_best_that_each_model_can_do(tmp_path, best):
    results = evaluated(one=network_of(1), two=network_of(2))
    comparison = compare(results, profile=profiled(best=best))
    expected = {
        "fp32": "one classifies 1,600 images/s in batches of 64, two 800 images/s in batches of 64: 2.0 times the "
        "throughput.",
        "bf16": "two classifies 64,000 images/s in batches of 64 in bfloat16, one 1,600 images/s in batches of 64 in "
        "float32: 40.0 times the throughput.",
    }
    assert comparison["verdict"][-1] == expected[best]
    save_comparison(comparison, tmp_path)
    write_comparison(tmp_path, results)
    for page in ("comparison.html", "comparison.md"):
        text = (tmp_path / page).read_text()
        assert ("answers; everything else, the scores above included, is of float32." in text) is (best == "bf16")
        assert ("64,000" in text) is (best == "bf16")
    text = (tmp_path / "comparison.html").read_text()
    assert ("in bfloat16, in which 3 of 1,000 validation images get another answer" in text) is (best == "bf16")


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [("result", "model_revision", "4567"), ("result", "run_seed", 7), ("model", "run", {"seed": 43})],
)
def test_bfloat16_is_shown_only_for_the_model_whose_answers_were_compared(where, key, value):
    results, profile = evaluated(one=network_of(1), two=network_of(2)), profiled(best="bf16")
    profile["models"]["two"]["run"] = {"seed": 42}
    results["two"].provenance["run_seed"] = 42
    twin = {"another model": profile["models"]["two"] | {"run": {"seed": 1}}}
    for models in (profile["models"], twin | profile["models"]):
        cost = compare(results, profile=profile | {"models": models})["models"]["two"]["cost"]
        assert (cost["precision"], cost["throughput"]) == ("bfloat16", 64_000)
    (results["two"].provenance if where == "result" else profile["models"]["two"])[key] = value
    cost = compare(results, profile=profile)["models"]["two"]["cost"]
    assert (cost["precision"], cost["answers"], cost["throughput"]) == ("float32", None, 800)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": [3, 256, 256]}, "simple-cnn, 256 x 256 pixels, 3 classes, 2 parameters"),
        ({"architecture": "resnet18"}, "resnet18, 32 x 32 pixels, 3 classes, 2 parameters"),
        ({"classes": 4}, "simple-cnn, 32 x 32 pixels, 4 classes, 2 parameters"),
        ({"parameters": 3}, "simple-cnn, 32 x 32 pixels, 3 classes, 3 parameters"),
        ({"tensors": "8f"}, "simple-cnn, 32 x 32 pixels, 3 classes, 2 parameters"),
    ],
)
def test_costs_of_another_network_are_refused(change, words):
    results = evaluated(one=network_of(1), two=network_of(2) | change)
    results["two"].provenance.update(model="runs/two", model_revision="two")  # a folder, not a name in the hub folder
    message = (
        f"The profile lacks the network of two ({words}). It has one (simple-cnn, 32 x 32 pixels, 3 classes, 1 "
        "parameters), two (simple-cnn, 32 x 32 pixels, 3 classes, 2 parameters). Measure the models of this comparison "
        "together: hfprobe profile hfprobe/one@0123abcd runs/two"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        compare(results, profile=profiled())


def test_an_evaluation_that_does_not_record_its_network_has_no_costs():
    results = evaluated(one=network_of(1), two=network_of(2))
    del results["two"].provenance["network"]
    message = (
        "The evaluation of two does not record its network, so no profile can be matched to it: an older hfprobe wrote "
        "it. Evaluate it again: hfprobe eval --model <model> --report_dir <folder>"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        compare(results, profile=profiled())


def test_an_evaluation_with_mirror_images_costs_two_forward_passes(tmp_path):
    results = evaluated(one=network_of(1), two=network_of(2))
    results["one"].provenance.update(test_time_augmentation="mirror image", temperature=1.5)
    comparison = compare(results, profile=profiled())
    cost = comparison["models"]["one"]["cost"]
    plain = compare(evaluated(one=network_of(1), two=network_of(2)), profile=profiled())["models"]["one"]["cost"]
    assert cost["passes"] == 2
    assert cost["throughput"] == plain["throughput"] / 2
    assert cost["macs"] == 2 * plain["macs"]
    for key in ("latency_ms", "single_latency_ms"):
        assert cost[key] == {name: 2 * value for name, value in plain[key].items()}
    for key in ("peak_memory_bytes", "disk_bytes", "input", "batch_size"):
        assert cost[key] == plain[key]
    assert comparison["verdict"][-1] == (
        "two classifies 800 images/s in batches of 64, one 800 images/s in batches of 64 with 2 forward passes per "
        "image (--tta): 1.0 times the throughput."
    )
    save_comparison(comparison, tmp_path)
    write_comparison(tmp_path, results)
    for page in ("comparison.html", "comparison.md"):
        text = (tmp_path / page).read_text()
        assert "A model that was evaluated with --tta needs two forward passes" in text
        assert "averaged probabilities of each image and its mirror image (--tta) and the temperature 1.5 (--t" in text


def built(name="cnn", *, labels=("cat", "dog"), **options):
    return build_model(name, labels=list(labels), options=find_family(name).recipe_options(**options))[0]


def test_networks_of_equal_cost_are_equal_and_no_others():
    small = describe_network(built(image_size=32), side=32)
    assert small | {"tensors": ""} == {
        "architecture": "simple-cnn", "input": [3, 32, 32], "classes": 2, "parameters": 2_470_402, "tensors": "",
    }  # fmt: skip
    assert describe_network(built(labels=["a", "b"], dropout=0.1), side=32) == small
    assert describe_network(built(image_size=256), side=256) == small | {"input": [3, 256, 256]}
    assert describe_network(built(labels=["a", "b", "c"]), side=32)["classes"] == 3
    assert describe_network(built().bfloat16(), side=32)["tensors"] != small["tensors"]


def test_the_tag_of_the_weights_of_a_backbone_is_not_part_of_its_network():
    model = built("probe", backbone="test_byobnet", backbone_weights="random")
    network = describe_network(model, side=96)
    assert network["architecture"] == "test_byobnet"
    model.config.backbone = "test_byobnet.r160_in1k"
    assert describe_network(model, side=96) == network


def test_missing_or_damaged_profile_is_an_input_error(tmp_path):
    profile = profiled()
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}' holds no profile (profile.json: No such file")):
        load_profile(tmp_path)
    older = copy.deepcopy(profile)
    del older["models"]["two"]["network"]
    for text, reason in (
        ("{", "damaged: "),
        ("[]", "damaged: "),
        (json.dumps(profile | {"models": {"a": {}}}), "damaged: 'batches' is missing. Make it: hfprobe profile "),
        (json.dumps({"models": profile["models"]}), "damaged: 'device' is missing. Make it: hfprobe profile "),
        (json.dumps(older), "damaged: 'network' is missing. Make it: hfprobe profile "),
    ):
        (tmp_path / "profile.json").write_text(text)
        with pytest.raises(InputError, match=re.escape(reason)):
            load_profile(tmp_path)
