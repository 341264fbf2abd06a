import ast
import inspect
import re
from pathlib import Path

import pytest
import transformers
from transformers import Trainer

from hfprobe.training.private_api import PRIVATE_METHODS, HookedTrainer
from hfprobe.training.trainer import ProbeTrainer

ROOM = Path(__file__).parents[2] / "hfprobe" / "training"
HERE = f"transformers {transformers.__version__}"


@pytest.mark.parametrize("name", PRIVATE_METHODS)
def test_the_installed_transformers_has_each_private_method_with_its_parameters(name):
    method, hook = getattr(Trainer, name, None), PRIVATE_METHODS[name].instead
    assert method is not None, f"{HERE} has no Trainer.{name} any more. What would replace it: {hook}."
    found = tuple(inspect.signature(method).parameters)[1:]
    expected = PRIVATE_METHODS[name].parameters
    assert found == expected, f"{HERE} has changed Trainer.{name}{expected} to {found}. What would replace it: {hook}."


def test_trainer_calls_each_private_method_that_is_overridden():
    """A method that nothing calls any more would be overridden in vain."""
    source = inspect.getsource(Trainer)
    for name in PRIVATE_METHODS:
        assert f"self.{name}(" in source, f"{HERE} does not call Trainer.{name} any more."


def test_the_table_lists_every_private_name_of_trainer_that_is_used():
    """Methods and attributes, wherever hfprobe/training overrides, calls or sets one."""
    attributes = re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(Trainer))
    private = {name for name in [*vars(Trainer), *attributes] if name.startswith("_") and not name.startswith("__")}
    used = {}
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", None) or getattr(node, "name", None)
            if name in private:
                used.setdefault(name, set()).add(path.name)
    assert used == {name: {"private_api.py"} for name in PRIVATE_METHODS}
    assert {name for name in vars(ProbeTrainer) if name in private} == set()
    assert {name for name in vars(HookedTrainer) if name in private} == set(PRIVATE_METHODS)
