"""The choice between variants: who is dropped, on how many images, and with which files read."""

import numpy as np
import pytest

from helpers.images import make_dataset
from hfprobe.data.pixels import decoded_rows
from hfprobe.tasks.decide import ranking
from hfprobe.tasks.decide.ranking import _classify_by_neighbours, _compare, rank, round_sizes
from hfprobe.tasks.decide.runs import Run


def answers(wrong, *, of=500, neighbours=0):
    """Predictions of which the first ones are wrong."""
    labels = np.zeros(of, dtype=int)
    return {
        "labels": labels,
        "predictions": (np.arange(of) < wrong).astype(int),
        "neighbours": (np.arange(of) < neighbours).astype(int),
        "seconds": 1.0,
    }


def test_only_what_is_clearly_worse_is_dropped():
    found = _compare({"worse": answers(60), "best": answers(20), "near": answers(24)}, train=500, validation=500)
    assert [(one.name, one.kept) for one in found.ranked] == [("best", True), ("near", True), ("worse", False)]
    best, near, worse = found.ranked
    assert best.difference is None
    assert near.difference[0] < near.accuracy - best.accuracy < near.difference[1]
    assert worse.difference[1] < 0
    assert best.accuracy == pytest.approx(0.96)
    assert best.interval[0] < 0.96 < best.interval[1]


class Features:
    def __init__(self, features, labels):
        self.features, self.labels = np.array(features, dtype=np.float32), np.array(labels)


def test_neighbours_vote_by_the_cosine_of_centred_features(monkeypatch):
    monkeypatch.setattr(ranking, "NEIGHBOURS", 3)
    train = Features([[9, 1], [8, 1], [7, 1.5], [1, 8], [1, 9], [1.5, 7]], [0, 0, 1, 1, 1, 1])
    validation = Features([[20, 2], [2, 20]], [0, 1])
    assert _classify_by_neighbours(train, validation).tolist() == [0, 1]


@pytest.fixture
def images():
    import hfprobe

    return hfprobe.load_images(make_dataset())


RUN = Run("probe-seed42", "probe", {"model": "probe"}, {name: {} for name in "abc"}, True)


def test_the_rounds_end_with_one_variant_or_with_all_images(images, monkeypatch):
    asked = []

    def predict(run, some):
        asked.append((run.variant, len(some.parts["train"]), len(some.parts["validation"])))
        return answers({"a": 5, "b": 4, "c": 90}[run.variant], of=300)

    monkeypatch.setattr(ranking, "_predict", predict)
    monkeypatch.setattr(ranking, "LEAST_TRAIN", 5)
    monkeypatch.setattr(ranking, "ROUNDS", ((2, 10), (4, 15)))
    rounds = rank(RUN, images, {})
    assert [[one.name for one in each.ranked] for each in rounds] == [["b", "a", "c"], ["b", "a"]]
    sizes = [round_sizes(images, number) for number in (0, 1)]
    assert sizes[0] < sizes[1]
    assert asked == [*((name, *sizes[0]) for name in "abc"), *((name, *sizes[1]) for name in "ba")]
    monkeypatch.setattr(ranking, "ROUNDS", ((10**6, 10**6), (10**7, 10**7)))
    assert len(rank(RUN, images, {})) == 1


def test_a_ranking_reads_each_file_once_for_all_models(tmp_path, monkeypatch):
    import PIL.Image

    import hfprobe
    from hfprobe.models.linear_probe.modeling import LinearProbeImageProcessor

    for number in range(30):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (50, 40 + number), (number, 0, 0)).save(folder / f"{number}.png")
    images = hfprobe.load_images(tmp_path / "photos")
    processors = {
        name: LinearProbeImageProcessor(size={"height": side, "width": side}, crop_size={"height": side, "width": side})
        for name, side in {"a": 24, "b": 32, "cnn": 16}.items()
    }
    reads, read = [], decoded_rows.read_image
    monkeypatch.setattr(decoded_rows, "read_image", lambda *args, **how: reads.append(1) or read(*args, **how))
    monkeypatch.setattr(ranking, "_predict", lambda run, some: answers(5, of=30))
    rank(RUN, images, processors)
    images.decode_for(list(processors.values()))
    assert len(reads) == 30
