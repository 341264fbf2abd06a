import pytest

from hfprobe.models.simple_cnn.modeling import SimpleCNNConfig


@pytest.fixture(scope="module", autouse=True)
def narrow_networks(narrow_network):
    """Most tests of a training need any network."""
    return narrow_network


@pytest.fixture
def whole_network(narrow_networks, monkeypatch):
    monkeypatch.setattr(SimpleCNNConfig.__init__, "__defaults__", narrow_networks)
