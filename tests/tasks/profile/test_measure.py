import json
import re
from dataclasses import replace

import pytest

from helpers.models import stamp
from helpers.processes import growth_and_imports
from helpers.results import saved_results
from hfprobe.data.splits.parts import BITS, PARTS, Membership
from hfprobe.models import build_model, find_family
from hfprobe.system.errors import InputError
from hfprobe.tasks.profile import measure as profiling
from hfprobe.tasks.profile import timing
from hfprobe.tasks.profile.measure import name_models, profile_models
from hfprobe.tasks.profile.page import render_summary, write_profile
from hfprobe.tasks.profile.result import Profile

pytestmark = pytest.mark.slow


def save_model(folder, *, name="cnn", **options):
    options = find_family(name).recipe_options(**options)
    model, processor = build_model(name, labels=["cat", "dog"], options=options)
    part = Membership(own=False, images=1, digest="0" * (BITS // 4), sample=[])
    stamp(model, seed=3, dataset=str(folder / "moved"), membership=dict.fromkeys(PARTS, part))
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
        patch.setattr(timing, "_resident_growth", growth_and_imports)

        def once(path, model, **values):
            return measured(path, model, **values) if path == folders["simple-cnn"] else 4 * model.num_parameters() + 1

        patch.setattr(profiling, "peak_memory", once)
        for name, size in (("cnn", 4), ("probe", 2)):
            patch.setattr(find_family(name), "profile_batch_size", size)
        patch.setattr(profiling, "preferred_precision", lambda device: ("bf16", "the test says so"))
        profile = profile_models(folders, batch_sizes=[1], rounds=5, seconds=0.001, trace_dir=folder)
    profile.save(folder)
    return folder, profile


def test_profile_equals_independently_computed_values(profiled):
    folder, profile = profiled
    cnn, probe = profile.models["simple-cnn"], profile.models["linear-probe"]
    weights = 3 * 64 * 9 + 64 * 128 * 9 + 128 * 256 * 9 + 4096 * 512 + 512 * 2
    assert cnn.network.parameters == cnn.trainable_parameters == weights + 3 * (64 + 128 + 256) + 512 + 2
    assert probe.trainable_parameters == 2 * 256 + 2
    assert cnn.disk_bytes == (folder / "a" / "model.safetensors").stat().st_size > 4 * cnn.network.parameters
    # Output positions times weights a position, layer by layer.
    macs = 3 * 64 * 9 * 32**2 + 64 * 128 * 9 * 16**2 + 128 * 256 * 9 * 8**2 + 4096 * 512 + 512 * 2
    assert cnn.macs == macs
    assert probe.macs > 10**7
    for model in (cnn, probe):
        assert set(model.batches) == {1, 2, 4}
        assert all(batch.n >= 5 for batch in model.batches.values())
        kinds = model.operators.kinds
        for what in ("time", "memory"):
            assert sum(getattr(shares, what) for shares in kinds.values()) == pytest.approx(1)
        assert kinds["convolution"].time > 0  # its rank depends on what else the machine does
        # Weights and the largest pair of activations are the least it can take.
        assert model.peak_memory_bytes > 4 * model.network.parameters
    assert json.loads((folder / "trace-simple-cnn.json").read_text())["traceEvents"]


def test_memory_is_measured_after_every_import(profiled):
    folder, _ = profiled
    assert json.loads((folder / "imported.json").read_text()) == {"a": [], "b": []}


def test_the_keys_of_a_profile_are_stable(profiled):
    folder, profile = profiled
    assert Profile.load(folder) == profile
    run = profile.models["simple-cnn"].run  # as an evaluation has it
    assert (run["seed"], run["dataset"]) == (3, str(folder / "a" / "moved"))
    assert not run.keys() & {"membership", "images", "precisions", "solution"}
    content = json.loads((folder / "profile.json").read_text())
    assert set(content) == {
        "models", "device", "memory_of", "hardware", "versions", "load_average", "rounds", "warmup_steps",
    }  # fmt: skip
    assert set(content["models"]["simple-cnn"]) == {
        "folder", "run", "network", "trainable_parameters", "macs", "disk_bytes",
        "own_batch_size", "peak_memory_bytes", "operators", "batches", "bf16", "exported",
    }  # fmt: skip
    assert set(content["models"]["simple-cnn"]["batches"]["1"]) == {"n", "latency_ms", "throughput"}


def test_table_shows_the_measured_values(profiled):
    folder, profile = profiled
    text = write_profile(profile, folder).read_text()
    for name, model in profile.models.items():
        assert f"| {name} | {' x '.join(map(str, model.network.input))} | {model.network.parameters:,} " in text
        for size, batch in model.batches.items():
            own = " (default)" if size == model.own_batch_size else ""
            assert re.search(rf"\| {name} \| {size}{re.escape(own)} \| .*\| {batch.n} \|", text)
    for image in re.findall(r"!\[.+\]\((.+)\)", text):
        assert (folder / image).read_bytes().startswith(b"\x89PNG")


def test_both_precisions_are_measured_where_the_machine_has_units(profiled):
    folder, profile = profiled
    text = write_profile(profile, folder).read_text()
    for name, model in profile.models.items():
        found, own = model.bf16, model.batches[model.own_batch_size]
        assert found.answers.of == "noise"  # the images of the training are not there
        assert found.speedup == found.batch.throughput.median / own.throughput.median
        best = {"bf16": "bfloat16", "fp32": "float32"}[found.best]
        answers = f"{found.answers.differing} of {found.answers.images} images of random noise"
        cells = f"{found.speedup:.2f} | {answers} | not measured | {best} |"
        assert re.search(rf"\| {name} \| .* \| {re.escape(cells)}\n", text)
    compared = saved_results()["profile.json"]
    text = render_summary(compared)
    assert "| 3 of 1,000 validation images | +0.10 (-0.20 to +0.40) | bfloat16 |" in text
    compared.models["two"] = replace(compared.models["two"], bf16=None)
    assert "bfloat16" not in render_summary(compared)


def test_names_are_shortened_if_they_stay_distinct(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert name_models(["hfprobe/simple-cnn", "linear-probe@ab12"], [one, two]) == {
        "simple-cnn": one, "linear-probe": two,
    }  # fmt: skip
    assert name_models(["cnn@ab", "cnn@cd"], [one, two]) == {"cnn@ab": one, "cnn@cd": two}
    with pytest.raises(InputError, match=re.escape("A model is named twice. Pass each model once.")):
        name_models(["cnn", "hfprobe/cnn"], [one, one])
