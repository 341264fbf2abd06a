import pytest

from hfprobe.models.simple_cnn.modeling import SimpleCNNConfig

CONSTRUCTOR = SimpleCNNConfig.__init__
WHOLE = CONSTRUCTOR.__defaults__


@pytest.fixture(scope="module", autouse=True)
def narrow_network():
    """SimpleCNN with a quarter of its channels: most tests of a training ask nothing of the network but to be one."""
    size, _, _, dropout = WHOLE
    CONSTRUCTOR.__defaults__ = (size, (16, 32, 64), 64, dropout)
    yield
    CONSTRUCTOR.__defaults__ = WHOLE


@pytest.fixture
def whole_network(monkeypatch):
    monkeypatch.setattr(CONSTRUCTOR, "__defaults__", WHOLE)
