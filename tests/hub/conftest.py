import pytest

from helpers.models import CARD, cat_model
from hfprobe.hub import local as hub


@pytest.fixture
def pushed(tmp_path):
    model, processor = cat_model()
    hub_dir = tmp_path / "hub"
    return (
        model,
        hub_dir,
        hub.push_model(model=model, processor=processor, hub_dir=hub_dir, name="simple-cnn", card=CARD),
    )
