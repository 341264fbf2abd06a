import numpy as np
import pytest
import torch

from helpers.images import CLASSES, draw_images
from helpers.ranks import run_ranks
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.models import answers, build_model, find_family
from hfprobe.models.answers import Views


@pytest.mark.parametrize("processes", [2, 5])
def test_answers_do_not_depend_on_the_number_of_processes(processes, narrow_network, monkeypatch):
    monkeypatch.setattr(answers, "BATCH_SIZE", 8)
    torch.manual_seed(0)
    model, processor = build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options())
    model.eval()
    images, labels = draw_images(30, classes=5)
    split = ImageSplit(images=images, labels=labels, index=np.arange(30))
    views = Views(numbers=range(2, 4), seed=1, augmentation={"shift": 4}, precision="fp32")

    def ask(rank=0):
        return answers.answer_views(model, processor, split, views=views, name="images")

    logits, _ = ask()
    found = run_ranks(processes, ask)
    assert len({seconds for _, seconds in found}) == 1
    for each, _ in found:
        np.testing.assert_array_equal(each, logits)
