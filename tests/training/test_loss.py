import numpy as np
import pytest
import torch

from hfprobe.training.loss import weighted_cross_entropy

LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
WEIGHTS = torch.tensor([1.5, 0.5, 1.0])  # mean 1 over these images


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_each_image_is_multiplied_by_the_weight_of_its_class(smoothing):
    log = LOGITS.log_softmax(-1).numpy()
    losses = -(1 - smoothing) * log[np.arange(12), LABELS] - smoothing * log.mean(1)
    expected = (WEIGHTS.numpy()[LABELS] * losses).mean()
    found = weighted_cross_entropy(LOGITS, LABELS, weights=WEIGHTS, smoothing=smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    plain = torch.nn.functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    ones = weighted_cross_entropy(LOGITS, LABELS, weights=torch.ones(3), smoothing=smoothing)
    assert ones.item() == pytest.approx(plain.item(), rel=1e-6)


def test_without_smoothing_all_images_together_have_torchs_weighted_loss():
    found = weighted_cross_entropy(LOGITS, LABELS, weights=WEIGHTS)
    expected = torch.nn.functional.cross_entropy(LOGITS, LABELS, weight=WEIGHTS)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_accumulated_batches_have_the_gradient_of_the_whole_batch():
    """torch's weighted loss divides by the weights of each batch, so that an image counts more beside light ones."""
    order = LABELS.argsort()  # batches of one class each

    def gradient(parts):
        logits = LOGITS.clone().requires_grad_()
        for part in parts:
            (weighted_cross_entropy(logits[part], LABELS[part], weights=WEIGHTS) / len(parts)).backward()
        return logits.grad

    torch.testing.assert_close(gradient(order.split(4)), gradient([order]))
