import copy
import json
import re
import subprocess
import sys
import textwrap

import pytest

from helpers.results import planted, profile_of
from hfprobe.evaluation import profiling
from hfprobe.evaluation.comparison import compare, load_profile, save_comparison
from hfprobe.evaluation.profiling import name_models, profile_models, save_profile
from hfprobe.models import build_model, find_family
from hfprobe.reporting import write_comparison, write_profile
from hfprobe.system.errors import InputError


def save_model(folder, *, name="cnn", **options):
    options = find_family(name).recipe_options(**options)
    model, processor = build_model(name, labels=["cat", "dog"], options=options)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """A profile of SimpleCNN and of a small probe: (folder, content)."""
    folder = tmp_path_factory.mktemp("profile")
    probe = save_model(folder / "b", name="vit", backbone="test_byobnet", backbone_weights="random")
    folders = {"simple-cnn": save_model(folder / "a"), "linear-probe": probe}
    with pytest.MonkeyPatch.context() as patch:
        measured = profiling.peak_memory  # a process of its own: for one of the two only

        def once(path, model, **values):
            return measured(path, model, **values) if path == folders["simple-cnn"] else 4 * model.num_parameters() + 1

        patch.setattr(profiling, "peak_memory", once)
        for name, size in (("cnn", 4), ("probe", 2)):
            patch.setattr(find_family(name), "profile_batch_size", size)
        patch.setattr(profiling, "find_faster", lambda device: ("bf16", "the test says so"))
        profile = profile_models(folders, batch_sizes=[1], rounds=5, seconds=0.001, trace_dir=folder)
    save_profile(profile, folder)
    return folder, profile


def test_profile_equals_independently_computed_values(profiled):
    folder, profile = profiled
    cnn, probe = profile["models"]["simple-cnn"], profile["models"]["linear-probe"]
    weights = 3 * 64 * 9 + 64 * 128 * 9 + 128 * 256 * 9 + 4096 * 512 + 512 * 2
    assert cnn["parameters"] == cnn["trainable_parameters"] == weights + 3 * (64 + 128 + 256) + 512 + 2
    assert probe["trainable_parameters"] == 2 * 256 + 2
    assert cnn["disk_bytes"] == (folder / "a" / "model.safetensors").stat().st_size > 4 * cnn["parameters"]
    # Output positions times weights a position, layer by layer.
    macs = 3 * 64 * 9 * 32**2 + 64 * 128 * 9 * 16**2 + 128 * 256 * 9 * 8**2 + 4096 * 512 + 512 * 2
    assert cnn["macs"] == macs
    assert probe["macs"] > 10**7
    for model in (cnn, probe):
        assert set(model["batches"]) == {"1", "2", "4"}
        assert all(batch["n"] >= 5 for batch in model["batches"].values())
        kinds = model["operators"]["kinds"]
        for what in ("time", "memory"):
            assert sum(shares[what] for shares in kinds.values()) == pytest.approx(1)
        assert kinds["convolution"]["time"] > 0  # its rank depends on what else the machine does
        # Weights and the largest pair of activations are the least it can take.
        assert model["peak_memory_bytes"] > 4 * model["parameters"]
    assert json.loads((folder / "trace-simple-cnn.json").read_text())["traceEvents"]


def test_memory_is_measured_after_every_import(profiled):
    folder, _ = profiled
    script = f"""
        import sys
        from pathlib import Path
        from hfprobe.evaluation import measurements
        modules, status = [], measurements._status
        measurements._status = lambda field: modules.append(set(sys.modules)) or status(field)
        measurements._resident_growth(Path({str(folder / "b")!r}), 64, 1)
        print(sorted(modules[1] - modules[0]))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_keys_of_a_profile_are_stable(profiled):
    folder, profile = profiled
    assert load_profile(folder) == profile
    assert set(profile) == {
        "models", "device", "memory_of", "hardware", "versions", "load_average", "rounds", "warmup_steps",
    }  # fmt: skip
    assert set(profile["models"]["simple-cnn"]) == {
        "folder", "run", "backbone", "parameters", "trainable_parameters", "macs", "disk_bytes", "input",
        "own_batch_size", "peak_memory_bytes", "operators", "batches", "bf16",
    }  # fmt: skip
    assert set(profile["models"]["simple-cnn"]["batches"]["1"]) == {"n", "latency_ms", "throughput"}


def test_table_shows_the_measured_values(profiled):
    folder, profile = profiled
    text = write_profile(folder).read_text()
    for name, model in profile["models"].items():
        assert f"| {name} | {' x '.join(map(str, model['input']))} | {model['parameters']:,} " in text
        for size, batch in model["batches"].items():
            own = " (default)" if int(size) == model["own_batch_size"] else ""
            assert re.search(rf"\| {name} \| {size}{re.escape(own)} \| .*\| {batch['n']} \|", text)
    for picture in re.findall(r"!\[.+\]\((.+)\)", text):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_both_precisions_are_measured_where_the_machine_has_units(profiled):
    folder, profile = profiled
    text = write_profile(folder).read_text()
    for name, model in profile["models"].items():
        found = model["bf16"]
        own = model["batches"][str(model["own_batch_size"])]
        assert set(found) == {"batch", "speedup", "images", "differing", "of", "accuracy", "best"}
        assert found["of"] == "noise"  # these models were not trained on anything
        assert found["speedup"] == found["batch"]["throughput"]["median"] / own["throughput"]["median"]
        best = {"bf16": "bfloat16", "fp32": "float32"}[found["best"]]
        answers = f"{found['differing']} of {found['images']} images of random noise"
        cells = f"{found['speedup']:.2f} | {answers} | not measured | {best} |"
        assert re.search(rf"\| {name} \| .* \| {re.escape(cells)}\n", text)
    content = json.loads((folder / "profile.json").read_text())
    for model in content["models"].values():
        model["bf16"] |= {"of": "validation", "accuracy": {"value": 0.001, "interval": [-0.002, 0.004]}}
    (folder / "profile.json").write_text(json.dumps(content))
    assert re.search(r"of \d+ validation images \| \+0\.10 \(-0\.20 to \+0\.40\) \|", write_profile(folder).read_text())
    for model in content["models"].values():
        model["bf16"] = None
    (folder / "profile.json").write_text(json.dumps(content))
    assert "bfloat16" not in write_profile(folder).read_text()
    for model in content["models"].values():
        del model["bf16"]  # of an earlier version
    (folder / "profile.json").write_text(json.dumps(content))
    assert "bfloat16" not in write_profile(folder).read_text()
    save_profile(profile, folder)


@pytest.mark.parametrize("best", ["fp32", "bf16"])
def test_a_comparison_shows_the_best_that_each_model_can_do(tmp_path, best):
    results = {name: planted(right, seed=seed) for seed, (name, right) in enumerate({"one": 0.9, "two": 0.8}.items())}
    for parameters, result in enumerate(results.values()):
        result.provenance.update(parameters=parameters, backbone=None)
    profile = profile_of(one=(0, 1.0), two=(1, 2.0))
    for model in profile["models"].values():
        model["bf16"] = {"best": "fp32", "batch": model["batches"]["64"]}
    fast = {"n": 5, "latency_ms": {"p50": 1, "p95": 2}, "throughput": {"median": 64_000}}
    profile["models"]["two"]["bf16"] = {"best": best, "batch": fast}
    comparison = compare(results, profile=profile)
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
        assert ("Batches are in bfloat16 where it was faster" in text) is (best == "bf16")
        assert ("64,000" in text) is (best == "bf16")


@pytest.mark.parametrize("best", ["fp32", "bf16"])
def test_a_comparison_shows_the_costs_of_the_same_network(profiled, best):
    profile = copy.deepcopy(profiled[1])
    for model in profile["models"].values():
        model["bf16"]["best"] = best  # otherwise the precision that was faster in this test
    results = {name: planted(right, seed=seed) for seed, (name, right) in enumerate({"one": 0.9, "two": 0.8}.items())}
    for result, model in zip(results.values(), profile["models"].values(), strict=True):
        result.provenance.update(parameters=model["parameters"], backbone=model["backbone"])
    comparison = compare(results, profile=profile)
    cost, other = (comparison["models"][name]["cost"] for name in results)
    cnn = profile["models"]["simple-cnn"]
    batch = {"fp32": cnn["batches"]["4"], "bf16": cnn["bf16"]["batch"]}[best]
    assert cost["latency_ms"] == batch["latency_ms"]
    assert cost["single_latency_ms"] == cnn["batches"]["1"]["latency_ms"]
    assert cost["macs"] == cnn["macs"]
    times = max(cost["throughput"], other["throughput"]) / min(cost["throughput"], other["throughput"])
    assert comparison["verdict"][-1].endswith(f": {times:.1f} times the throughput.")
    results["two"].provenance["backbone"] = "another"
    with pytest.raises(InputError, match=re.escape("The profile measured simple-cnn, linear-probe, and none of them")):
        compare(results, profile=profile)


def test_missing_or_damaged_profile_is_an_input_error(tmp_path, profiled):
    _, profile = profiled
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}' holds no profile (profile.json: No such file")):
        load_profile(tmp_path)
    for text, reason in (
        ("{", "damaged: "),
        ("[]", "damaged: "),
        (json.dumps(profile | {"models": {"a": {}}}), "damaged: 'batches' is missing. Make it: hfprobe profile "),
        (json.dumps({"models": profile["models"]}), "damaged: 'device' is missing. Make it: hfprobe profile "),
    ):
        (tmp_path / "profile.json").write_text(text)
        with pytest.raises(InputError, match=re.escape(reason)):
            load_profile(tmp_path)


def test_names_are_shortened_if_they_stay_distinct(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert name_models(["hfprobe/simple-cnn", "linear-probe@ab12"], [one, two]) == {
        "simple-cnn": one, "linear-probe": two,
    }  # fmt: skip
    assert name_models(["cnn@ab", "cnn@cd"], [one, two]) == {"cnn@ab": one, "cnn@cd": two}
    with pytest.raises(InputError, match=re.escape("A model is named twice. Pass each model once.")):
        name_models(["cnn", "hfprobe/cnn"], [one, one])
