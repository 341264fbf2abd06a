import argparse
import pathlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.hub_content import logged
from helpers.models import SMALL, build_probe, refused
from hfprobe.models.linear_probe.weights import ENTRIES, read_weights, select_weights
from hfprobe.system.errors import InputError

WANTED = {"stem.weight": torch.arange(6.0).view(2, 3), "stem.steps": torch.tensor(4)}
HEAD = {"head.weight"}


def select(weights):
    return select_weights(weights, WANTED, head=HEAD, source="w.pth")


def are_wanted(found):
    return found.keys() == WANTED.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in WANTED.items()
    )


def below(prefix, weights=WANTED):
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_weights_of_a_checkpoint_are_in_one_of_these_entries(tmp_path, caplog, entry):
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, entry: WANTED}, tmp_path / "w.pth")
    weights, found = read_weights(tmp_path / "w.pth")
    assert found == entry
    assert are_wanted(weights)
    assert logged(caplog) == [f"Weights of {tmp_path}/w.pth: the entry '{entry}'."]


def test_averaged_weights_come_first_and_the_log_names_the_others(tmp_path, caplog):
    other = {name: value + 1 for name, value in WANTED.items()}
    content = {"model": other, "state_dict": other, "model_ema": {"module": 1, "state_dict": WANTED}, "arch": "x"}
    torch.save(content, tmp_path / "w.pth")
    weights, found = read_weights(tmp_path / "w.pth")
    assert found == "state_dict"
    assert are_wanted(weights)
    assert logged(caplog) == [
        f"Weights of {tmp_path}/w.pth: the entry 'model_ema'; not used: state_dict, model.",
        f"Weights of {tmp_path}/w.pth: the entry 'state_dict'.",
    ]


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module.backbone."])
@pytest.mark.parametrize("others", [{}, {"head.weight": torch.ones(1)}])
def test_prefixes_are_removed(caplog, prefix, others):
    assert are_wanted(select(below(prefix) | below(prefix, others)))
    assert logged(caplog) == ([f"The weights in w.pth are those below '{prefix}'."] if prefix else [])


def test_what_is_not_below_the_prefix_is_left_out_and_named(caplog):
    others = {"n_averaged": torch.tensor(9), "projector.weight": torch.ones(2)}
    assert are_wanted(select(below("backbone.") | others))
    assert logged(caplog) == [
        "The weights in w.pth are those below 'backbone.'; 2 other tensors are left out, among them n_averaged."
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(caplog, dtype):
    half = {name: value.to(dtype) if value.is_floating_point() else value for name, value in WANTED.items()}
    assert are_wanted(select(half))
    name = str(dtype).removeprefix("torch.")
    assert logged(caplog) == [f"The weights in w.pth are in {name}; they are loaded as float32."]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            below("encoder.", {"stem.weight": WANTED["stem.weight"], "extra": torch.ones(1)}),
            "'w.pth' does not match the backbone; missing: stem.steps; unexpected: extra below 'encoder.'. Pass the ",
        ),
        (
            below("conv.", dict(zip("abcde", torch.ones(5), strict=True))),
            "missing: stem.weight, stem.steps; unexpected: conv.a, conv.b, conv.c and 2 more. Pass the weights of the ",
        ),
        ({}, "'w.pth' does not match the backbone; missing: stem.weight, stem.steps. Pass the weights of the model "),
        (
            below("model.") | below("encoder."),
            "'w.pth' holds weights that match the backbone below several prefixes: 'model.', 'encoder.'. Save only ",
        ),
    ],
)
def test_weights_that_fit_in_part_or_twice_are_refused(weights, message):
    refused(lambda: select(weights), message)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"model": WANTED, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ({"model": WANTED, "path": pathlib.PurePosixPath("x")}, "pathlib.PurePosixPath"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        ({"model": WANTED, "accuracy": np.float64(0.5)}, ".multiarray.scalar"),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_other_pickled_objects_are_refused_by_their_names(tmp_path, content, name, new):
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(InputError) as error:
        read_weights(path)
    start, end = str(error.value).split(" beside the weights or in place of them. ")
    assert start.startswith(f"'{path}' holds a pickled ")
    assert start.endswith(name)
    assert end == (
        "It was not loaded, because that can run code. Where the file came from a trusted source, save only its "
        "weights: content = torch.load(path, weights_only=False), then torch.save(content['state_dict'], "
        "'weights.pth') with the entry that holds them, or torch.save(content.state_dict(), 'weights.pth') for a whole "
        "model."
    )


def test_files_without_weights_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    for content, message in (
        ({"student": WANTED, "epoch": 3}, "in an entry state_dict_ema, model_ema, state_dict, model_state_dict, model; "
         "other entries: student, epoch. Save only model.state_dict()."),
        ({"model": "resnet18", "epoch": 3}, "; other entries: model, epoch. Save only model.state_dict()."),
        ([1, 2], "does not hold a state dict of tensors. Save only model.state_dict()."),
    ):  # fmt: skip
        torch.save(content, path)
        refused(lambda: read_weights(path), message)
    path.write_bytes(b"no pickle")
    refused(lambda: read_weights(path), "is damaged, or no file of torch; nothing in it was run. Download or save it ")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    refused(lambda: read_weights(path), "holds a TorchScript program beside the weights or in place of them.")


def test_a_published_probe_is_a_source_of_its_backbone(tmp_path):
    model, _ = build_probe()
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file(half, tmp_path / "w.safetensors")
    found, _ = build_probe(SMALL, str(tmp_path / "w.safetensors"))
    for name, value in model.backbone.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(found.backbone.state_dict()[name], expected)
