import json
import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from helpers.features import blobs
from helpers.models import build_probe
from helpers.processes import end_ranks, start_ranks
from helpers.ranks import run_ranks
from hfprobe.models.answers import Solved
from hfprobe.models.linear_probe import blocks
from hfprobe.models.linear_probe.features import FeatureSplit
from hfprobe.models.linear_probe.folds import Heads, solve_folds
from hfprobe.models.linear_probe.head import PENALTIES, install_head, minimise_cross_entropy, refit_head, solve_head
from hfprobe.models.linear_probe.search import search_heads

pytestmark = pytest.mark.usefixtures("all_penalties")


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_solution_equals_that_of_scikit_learn(penalty):
    data = blobs()
    values = data.features[0, :, 2:].astype(np.float64)  # without the constant, which only the biases tell apart
    expected = LogisticRegression(C=1 / (penalty * len(values)), tol=1e-10, max_iter=10_000).fit(values, data.labels)
    found = minimise_cross_entropy(
        torch.from_numpy(values), torch.from_numpy(data.labels), penalty=penalty, start=torch.zeros(3, 19).double()
    )
    np.testing.assert_allclose(found[:, :-1], expected.coef_, atol=1e-4)
    # The penalty leaves the biases alone, so they are fixed up to a common constant.
    bias = found[:, -1].numpy()
    np.testing.assert_allclose(bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), atol=1e-3)


def test_standardisation_is_folded_into_the_linear_layer():
    data, held_out = blobs(), blobs(seed=1)
    head = solve_head(data, held_out, classes=3)
    mean, scale = data.features[0].astype(np.float64).mean(0), data.features[0].astype(np.float64).std(0)
    scale[scale < 1e-12] = 1
    standardised = torch.from_numpy((data.features[0].astype(np.float64) - mean) / scale)
    solution = minimise_cross_entropy(
        standardised, torch.from_numpy(data.labels), penalty=head.penalty, start=torch.zeros(3, 21).double()
    )
    expected = standardised @ solution[:, :-1].T + solution[:, -1]
    found = data.features[0] @ head.weight.T + head.bias
    difference = found - expected.numpy()
    np.testing.assert_allclose(difference - difference.mean(1, keepdims=True), 0, atol=1e-3)


def test_chosen_penalty_is_the_best_on_validation():
    data, held_out = blobs(count=60), blobs(count=300, seed=1)
    head = solve_head(data, held_out, classes=3)
    for penalty in PENALTIES:
        values = data.features[0].astype(np.float64)
        mean, scale = values.mean(0), values.std(0)
        scale[scale == 0] = 1
        solution = minimise_cross_entropy(
            torch.from_numpy((values - mean) / scale),
            torch.from_numpy(data.labels),
            penalty=penalty,
            start=torch.zeros(3, 21).double(),
        )
        logits = torch.from_numpy((held_out.features[0] - mean) / scale) @ solution[:, :-1].T + solution[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(held_out.labels)).item()
        assert head.validation_loss <= loss + 1e-6


def test_install_head_copies_the_weights():
    model, _ = build_probe()
    install_head(model, np.ones((5, 256)), np.arange(5.0))
    assert torch.equal(model.head.weight, torch.ones(5, 256))
    assert model.head.bias.tolist() == [0, 1, 2, 3, 4]


CLASS_WEIGHTS = {0: 1.0, 1: 4.0, 2: 0.25}


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
@pytest.mark.parametrize("class_weight", [CLASS_WEIGHTS, "balanced"])
def test_weighted_solution_equals_that_of_scikit_learn(penalty, class_weight):
    data = blobs(count=450)
    kept = np.r_[np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels == 1)[:60], np.arange(2, 90, 3)]
    values, labels = data.features[0, kept, 2:].astype(np.float64), data.labels[kept]
    by_class = compute_class_weight(class_weight, classes=np.arange(3), y=labels)
    reference = LogisticRegression(
        C=1 / (penalty * len(values)), tol=1e-10, max_iter=10_000, class_weight=class_weight, solver="newton-cg"
    ).fit(values, labels)
    found = minimise_cross_entropy(
        torch.from_numpy(values),
        torch.from_numpy(labels),
        penalty=penalty,
        start=torch.zeros(3, 19).double(),
        weights=torch.from_numpy(by_class[labels]),
    )
    np.testing.assert_allclose(found[:, :-1], reference.coef_, atol=1e-6)
    bias = found[:, -1].numpy()
    np.testing.assert_allclose(bias - bias.mean(), reference.intercept_ - reference.intercept_.mean(), atol=1e-6)


def test_weighted_head_minimises_the_weighted_loss_on_validation():
    data, held_out = blobs(count=60), blobs(count=300, seed=1)
    weights = np.array([1.0, 4.0, 0.25])
    plain, weighted = (solve_head(data, held_out, classes=3, class_weights=one) for one in (None, weights))
    logits = held_out.features[0] @ weighted.weight.T + weighted.bias
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(held_out.labels), reduction="none"
    ).numpy()
    by_image = weights[held_out.labels]
    assert weighted.validation_loss == pytest.approx(by_image @ losses / by_image.sum())
    # More images are said to be of the class whose mistakes count most.
    counts = [
        np.bincount((held_out.features[0] @ head.weight.T + head.bias).argmax(1), minlength=3)
        for head in (plain, weighted)
    ]
    assert counts[1][1] > counts[0][1]
    assert counts[1][2] < counts[0][2]


def test_weights_of_one_change_nothing():
    data, held_out = blobs(), blobs(seed=1)
    plain, weighted = (solve_head(data, held_out, classes=3, class_weights=one) for one in (None, np.ones(3)))
    assert weighted.penalty == plain.penalty
    np.testing.assert_allclose(weighted.weight, plain.weight, atol=1e-6)


def solve_all():
    """Heads of two views with class weights: solved, refitted and cross-fitted; as one array."""
    data, held_out = blobs(count=150), blobs(count=60, seed=1)
    data = FeatureSplit(np.concatenate([data.features, data.features + np.float32(0.1)]), data.labels)
    how = {"classes": 3, "class_weights": np.array([1.0, 4.0, 0.25])}
    head = solve_head(data, held_out, **how)
    refitted = refit_head(data, held_out, penalty=head.penalty, **how)
    solved = Solved(np.arange(20, 120), {"penalty": head.penalty}, how["class_weights"])
    folds = solve_folds(data, Heads(np.zeros((1, 3, 20)), np.zeros((1, 3))), solved=solved)
    parts = [head.weight, head.bias, head.trials[0].costs, *refitted, folds.weight, folds.bias]
    return np.concatenate([np.ravel(part) for part in parts])


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_heads_do_not_depend_on_the_number_of_processes(processes, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(blocks, "LEAST_SHARED", 0)
    monkeypatch.setattr("hfprobe.models.linear_probe.head.PENALTIES", PENALTIES[3:5])
    (alone,) = run_ranks(1, lambda rank: solve_all())
    for found in run_ranks(processes, lambda rank: solve_all()):
        np.testing.assert_array_equal(found, alone)


def test_the_search_does_not_depend_on_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(blocks, "LEAST_SHARED", 0)
    monkeypatch.setattr("hfprobe.models.linear_probe.head.PENALTIES", PENALTIES[1:2])
    data = blobs(count=60, size=512, classes=5)
    models = [build_probe(head_search=True)[0] for _ in range(2)]
    (alone,) = run_ranks(1, lambda rank: search_heads(models[0], data, data))
    weight = models[0].head.weight.clone()
    assert run_ranks(2, lambda rank: search_heads(models[rank], data, data)) == [alone, alone]
    assert all(torch.equal(model.head.weight, weight) for model in models)


@pytest.mark.slow
def test_real_processes_solve_the_same_heads_and_notice_when_one_differs_or_ends(tmp_path):
    script = tmp_path / "solve.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, os, sys
            import numpy as np
            import torch
            from helpers.features import blobs
            from hfprobe.models.linear_probe import blocks
            from hfprobe.models.linear_probe.head import refit_head, solve_head
            from hfprobe.system import ranks
            from hfprobe.system.errors import InputError, MachineError

            blocks.BLOCK, blocks.LEAST_SHARED = 16, 0
            rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
            if count > 1:
                torch.distributed.init_process_group("gloo")
            data, held_out, weights = blobs(), blobs(seed=1), np.array([1.0, 4.0, 0.25])
            head = solve_head(data, held_out, classes=3, class_weights=weights)
            weight, bias = refit_head(data, held_out, classes=3, penalty=head.penalty, class_weights=weights)
            heads = np.concatenate([np.ravel(part) for part in (head.weight, head.bias, weight, bias)])
            messages = []
            try:
                ranks.add_up(torch.zeros(3, dtype=torch.float64), point=rank)
            except InputError as error:
                messages.append(str(error))
            if rank > 0 or count == 1:
                try:
                    ranks.add_up(torch.zeros(3, dtype=torch.float64))
                except MachineError as error:
                    messages.append(str(error))
            print(json.dumps([heads.tolist(), messages]), flush=True)
            os._exit(0)
            """
        )
    )
    tests = str(Path(__file__).parents[2])
    found = {}
    for count in (1, 2):
        ended = end_ranks(start_ranks(count, script, cwd=tmp_path, PYTHONPATH=os.pathsep.join([tests, *sys.path])))
        assert [code for code, *_ in ended] == [0] * count, ended
        found[count] = [json.loads(output) for _, output, _ in ended]
    ((alone, messages),) = found[1]
    assert messages == []
    other = "Process 1 of 2 computes other numbers than process 0. Start all processes on processors of one "
    for rank, (heads, messages) in enumerate(found[2]):
        assert heads == alone
        assert messages[0].startswith(other)
        assert len(messages) == (1 if rank == 0 else 2)
        assert all(text.startswith("Another of the 2 processes of this run has e") for text in messages[1:])
