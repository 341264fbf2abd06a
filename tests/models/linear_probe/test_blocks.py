import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.ranks import run_ranks
from hfprobe.models.linear_probe import blocks
from hfprobe.models.linear_probe.blocks import Blocks, Chosen
from hfprobe.models.linear_probe.head import Problem


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8)
    monkeypatch.setattr(blocks, "LEAST_SHARED", 0)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sum_and_map(layers):
    found = Blocks(layers)
    total = found.sum(lambda sums, values, rows: sums.add_(values.T @ values * (1 + rows.start)), 5, 5)
    return total, found.map(lambda values: values[:, :2] * 3, 2)


@pytest.mark.parametrize("counts", [(1,), (8,), (203,), (21, 21, 4), (500, 8)])
def test_sums_do_not_depend_on_the_number_of_processes(counts):
    layers = [draw(count, 5, seed=seed) for seed, count in enumerate(counts)]
    (alone,) = run_ranks(1, lambda rank: sum_and_map(layers))
    for processes in (2, 3, 4, 20):
        for total, mapped in run_ranks(processes, lambda rank: sum_and_map(layers)):
            assert torch.equal(total, alone[0])
            assert torch.equal(mapped, alone[1])
    together = np.concatenate(layers).astype(np.float64)
    np.testing.assert_array_equal(alone[1], together[:, :2] * 3)
    starts = np.concatenate([np.arange(count) // 8 * 8 for count in counts])
    starts += np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    np.testing.assert_allclose(alone[0], (together * (1 + starts[:, None])).T @ together, rtol=1e-12)


def test_the_parts_are_divided_evenly():
    read = run_ranks(4, lambda rank: sum(len(range(160)[rows]) for rows in rows_read(draw(160, 5))))
    assert read == [40, 40, 40, 40]


def rows_read(values):
    read = []
    Blocks([values]).sum(lambda sums, values, rows: read.append(rows), 1)
    return read


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_kept_blocks_have_the_bits_of_those_that_are_converted_again(dtype, monkeypatch):
    layers = [draw(100, 5).astype(dtype), draw(30, 9, seed=1).astype(dtype)[:, 2:7]]
    kept = sum_and_map(layers)
    assert Blocks(layers)._kept
    monkeypatch.setattr(blocks, "available_memory", lambda: 2 * 8 * 130 * 5 - 1)
    assert not Blocks(layers)._kept
    assert all(map(torch.equal, kept, sum_and_map(layers)))
    monkeypatch.setattr(blocks, "available_memory", lambda: None)
    assert Blocks(layers)._kept


def test_processes_beside_each_other_divide_the_free_memory(monkeypatch):
    layers = [draw(160, 5)]
    monkeypatch.setattr(blocks, "available_memory", lambda: 2 * 8 * 160 * 5)
    assert run_ranks(4, lambda rank: len(Blocks(layers)._kept)) == [5, 5, 5, 5]
    monkeypatch.setattr(blocks, "available_memory", lambda: 2 * 8 * 160 * 5 - 1)
    assert run_ranks(4, lambda rank: len(Blocks(layers)._kept)) == [0, 0, 0, 0]


def test_each_process_computes_all_of_a_small_sum(monkeypatch):
    values = draw(160, 5)
    shared = run_ranks(2, lambda rank: sum_and_map([values]))[0]
    monkeypatch.setattr(blocks, "LEAST_SHARED", 160 * 5 + 1)
    for found in run_ranks(2, lambda rank: [*sum_and_map([values]), len(rows_read(values))]):
        assert all(map(torch.equal, shared, found[:2]))
        assert found[2] == 20


def test_chosen_rows_are_read_like_a_copy_of_them():
    values, positions = draw(90, 5), np.random.default_rng(1).permutation(90)[:50]
    assert all(map(torch.equal, sum_and_map([Chosen(values, positions)]), sum_and_map([values[positions]])))


class LargestTensor(TorchDispatchMode):
    """Records the most elements of a float64 tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            self.elements = max(self.elements, found.untyped_storage().nbytes() // 8)
        return found


class CountedRows:
    """Rows that record how many are read at once."""

    def __init__(self, values):
        self.values, self.most = values, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        found = self.values[rows]
        self.most = max(self.most, len(found))
        return found


@pytest.mark.parametrize("count", [200, 800])
def test_memory_of_the_head_does_not_grow_with_the_features(count, monkeypatch):
    monkeypatch.setattr(blocks, "available_memory", lambda: 0)
    classes, size = 2, 40
    rows, labels = CountedRows(draw(count, size)), np.arange(count) % classes
    with LargestTensor() as largest:
        problem = Problem([rows], labels, None)
        problem.solve(penalty=0.01, start=torch.zeros(classes, size + 1).double())
    assert rows.most == blocks.BLOCK
    # Matrices of F x F and C x N; the features are 8,000 and 32,000 values.
    assert largest.elements <= max(size * size, classes * count)
