import re
from dataclasses import replace

import pytest

from helpers.results import batch_of, network_of, planted, profile_of, with_exports, with_provenance
from hfprobe.models import build_model, find_family
from hfprobe.models.network import Network, describe_network
from hfprobe.system.errors import InputError
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.profile.result import Answers, Bfloat16, Latency, Profile


def evaluated(**networks):
    """Evaluations of these networks: name -> result."""
    return {
        name: with_provenance(
            planted(0.9 - number / 10, seed=number),
            model=f"hfprobe/{name}",
            parameters=network.parameters,
            network=network,
        )
        for number, (name, network) in enumerate(networks.items())
    }


def profiled(*, best="fp32"):
    """Profile of networks with 1 and 2 parameters, of the models `one` and `two`; `two` is 80 times as fast in bf16."""
    profile = profile_of(one=(1, 1.0), two=(2, 2.0))
    answers = Answers(images=1000, differing=3, of="validation", accuracy=None)
    for name, model in profile.models.items():
        bf16 = Bfloat16(batch_of(64, 1.0), speedup=80.0, answers=answers, best=best if name == "two" else "fp32")
        profile.models[name] = replace(model, folder="0123abcd", bf16=bf16)  # the revision of the evaluations
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
    assert comparison.sentences[-1] == expected[best]
    save_comparison(comparison, tmp_path)
    for page in ("comparison.html", "comparison.md"):
        text = (tmp_path / page).read_text()
        assert ("answers; everything else, the scores above included, is of float32." in text) is (best == "bf16")
        assert ("64,000" in text) is (best == "bf16")
    text = (tmp_path / "comparison.html").read_text()
    assert ("in bfloat16, in which 3 of 1,000 validation images get another answer" in text) is (best == "bf16")


@pytest.mark.parametrize(
    "other", [{"model_revision": "4567"}, {"run": {"seed": 7}}, {"run": {"seed": 42, "epochs": 3.0}}]
)
def test_bfloat16_is_shown_only_for_the_model_whose_answers_were_compared(other):
    results, profile = evaluated(one=network_of(1), two=network_of(2)), profiled(best="bf16")
    two = profile.models["two"] = replace(profile.models["two"], run={"seed": 42})
    results["two"] = with_provenance(results["two"], run={"seed": 42})
    twin = {"another model": replace(two, run={"seed": 1})}
    for models in (profile.models, twin | profile.models):
        cost = replace(profile, models=models).find_costs(results)["two"]
        assert (cost.precision, cost.throughput) == ("bfloat16", 64_000)
    results["two"] = with_provenance(results["two"], **other)
    cost = profile.find_costs(results)["two"]
    assert (cost.precision, cost.answers, cost.throughput) == ("float32", None, 800)


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
    results = evaluated(one=network_of(1), two=replace(network_of(2), **change))
    # A folder, not a name in the hub folder.
    results["two"] = with_provenance(results["two"], model="runs/two", model_revision="two")
    message = (
        f"The profile lacks the network of two ({words}). It has one (simple-cnn, 32 x 32 pixels, 3 classes, 1 "
        "parameters), two (simple-cnn, 32 x 32 pixels, 3 classes, 2 parameters). Measure the models of this comparison "
        "together: hfprobe profile hfprobe/one@0123abcd runs/two"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        compare(results, profile=profiled())


def test_an_evaluation_with_mirror_images_costs_two_forward_passes(tmp_path):
    results = evaluated(one=network_of(1), two=network_of(2))
    results["one"] = with_provenance(results["one"], test_time_augmentation="mirror image", temperature=1.5)
    comparison = compare(results, profile=profiled())
    plain = profiled().find_costs(evaluated(one=network_of(1), two=network_of(2)))["one"]
    assert comparison.models["one"].cost == replace(
        plain,
        passes=2,
        throughput=plain.throughput / 2,
        macs=2 * plain.macs,
        latency_ms=Latency(2 * plain.latency_ms.p50, 2 * plain.latency_ms.p95),
        single_latency_ms=Latency(2 * plain.single_latency_ms.p50, 2 * plain.single_latency_ms.p95),
    )
    assert comparison.sentences[-1] == (
        "two classifies 800 images/s in batches of 64, one 800 images/s in batches of 64 with 2 forward passes per "
        "image (--tta): 1.0 times the throughput."
    )
    save_comparison(comparison, tmp_path)
    for page in ("comparison.html", "comparison.md"):
        text = (tmp_path / page).read_text()
        assert "A model that was evaluated with --tta needs two forward passes" in text
        assert "averaged probabilities of each image and its mirror image (--tta) and the temperature 1.5 (--t" in text


def test_a_file_in_int8_has_its_own_cost(tmp_path):
    results = {runtime: evaluated(one=network_of(1))["one"] for runtime in ("torch", "int8")}
    results["int8"] = with_provenance(results["int8"], runtime="int8")
    profile = with_exports(profile_of(one=(1, 1.0)), results["torch"], model_quantized=(0.85, 0.25))
    comparison = compare(results, profile=profile)
    cost = comparison.models["int8"].cost
    assert (cost.precision, cost.throughput, cost.single_latency_ms.p50) == ("int8", 6400, 0.25)
    assert (cost.disk_bytes, cost.peak_memory_bytes, cost.operators) == (1_000_000, None, {})
    assert comparison.sentences[-1] == (
        "int8 classifies 6,400 images/s in batches of 64 in int8, torch 1,600 images/s in batches of 64 in float32: "
        "4.0 times the throughput."
    )
    text = save_comparison(comparison, tmp_path).read_text()
    assert "batches of 64 in int8" in text
    assert ", batch of 64 in int8 |" in (tmp_path / "comparison.md").read_text()
    assert text.count('<th scope="col"><bdi>int8</bdi></th>') == 0  # no operators were measured
    twice = with_provenance(results["int8"], test_time_augmentation="mirror image")
    assert profile.find_costs({"int8": twice})["int8"].throughput == 3200


@pytest.mark.parametrize("change", [{"model_revision": "another"}, {"run": {"seed": 7}}, {"runtime": "onnx"}])
def test_the_cost_of_a_file_is_that_of_the_very_model(change):
    result = with_provenance(evaluated(one=network_of(1))["one"], runtime="int8")
    profile = with_exports(profile_of(one=(1, 1.0)), result, model_quantized=(0.85, 0.25))
    result = with_provenance(result, **change)
    file = "model.onnx" if "runtime" in change else "model_quantized.onnx"
    message = f"The profile lacks the network of one (simple-cnn, 32 x 32 pixels, 3 classes, 1 parameters), {file}. It "
    with pytest.raises(InputError, match=re.escape(message)):
        profile.find_costs({"one": result})


@pytest.mark.parametrize(
    "change", [{"model_revision": "another"}, {"images_fingerprint": "e" * 64}, {"test_time_augmentation": "mirror"}]
)
def test_the_accuracy_of_a_file_is_shown_for_the_images_that_it_was_counted_on(change):
    result = evaluated(one=network_of(1))["one"]
    profile = with_exports(profile_of(one=(1, 1.0)), result, model_quantized=(0.85, 0.25), model=(0.9, 0.5))
    assert list(profile.find_costs({"one": result})["one"].exported) == ["onnx", "int8"]
    assert profile.find_costs({"one": with_provenance(result, **change)})["one"].exported == {}


def built(name="cnn", *, labels=("cat", "dog"), **options):
    return build_model(name, labels=list(labels), options=find_family(name).recipe_options(**options))[0]


def test_networks_of_equal_cost_are_equal_and_no_others():
    small = describe_network(built(image_size=32), side=32)
    assert small == Network("simple-cnn", [3, 32, 32], classes=2, parameters=2_470_402, tensors=small.tensors)
    assert describe_network(built(labels=["a", "b"], dropout=0.1), side=32) == small
    assert describe_network(built(image_size=256), side=256) == replace(small, input=[3, 256, 256])
    assert describe_network(built(labels=["a", "b", "c"]), side=32).classes == 3
    assert describe_network(built().bfloat16(), side=32).tensors != small.tensors


def test_the_tag_of_the_weights_of_a_backbone_is_not_part_of_its_network():
    model = built("probe", backbone="test_byobnet", backbone_weights="random")
    network = describe_network(model, side=96)
    assert network.architecture == "test_byobnet"
    model.config.backbone = "test_byobnet.r160_in1k"
    assert describe_network(model, side=96) == network


def test_a_profile_lacks_the_batch_size_of_a_model(tmp_path):
    profile = profiled()
    del profile.models["two"].batches[64]
    profile.save(tmp_path)
    with pytest.raises(InputError, match=r"damaged: 'batches' of 0123abcd lacks 64, its 'own_batch_size'\. Make it: "):
        Profile.load(tmp_path)
