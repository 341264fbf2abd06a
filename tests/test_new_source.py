"""A data source is one function: a test adds files of arrays, and every command reads them as it reads folders."""

import numpy as np

from hfprobe.api import evaluate, load_images, train
from hfprobe.data.memory import read_memory
from hfprobe.data.sources import folders
from hfprobe.data.sources.table_folders import Found


def load_arrays(file, data, *, whole=False):
    """A .npz file with the arrays `images`, (N, H, W, 3) uint8, and `labels`, (N,)."""
    with np.load(file) as arrays:
        source, _ = read_memory((arrays["images"], arrays["labels"]), data)
    return Found(source.splits, source.left_out)


def test_a_file_of_another_kind_is_a_dataset_once_its_ending_has_a_function(tmp_path, monkeypatch):
    monkeypatch.setitem(folders.FILES, ".npz", load_arrays)
    monkeypatch.chdir(tmp_path)
    labels = np.arange(60) % 2
    images = np.random.default_rng(0).integers(0, 100, (60, 32, 32, 3)) + 100 * labels[:, None, None, None]
    np.savez("photos.npz", images=images.astype(np.uint8), labels=np.array(["dark", "light"])[labels])
    loaded = load_images("photos.npz", seed=1)
    assert loaded.class_names == ["dark", "light"]
    assert [sum(counts) for counts in loaded.counts().values()] == [38, 10, 12]  # train, validation, test
    model = train("cnn", loaded, epochs=1, batch_size=8, use_cpu=True, report_to="none", disable_tqdm=True)
    assert evaluate(model).provenance.source == "local file photos.npz"
