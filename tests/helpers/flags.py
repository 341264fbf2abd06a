"""Every flag of every model, with values to try it with."""

from hfprobe.cli.run_flags import make_parser
from hfprobe.models import available_models
from hfprobe.system.errors import InputError

PARSERS = {model: make_parser(model) for model in available_models()}
NUMBERS = ["-1", "0", "1", "0.5", "2", "nan", "inf", "-inf", "1e30", "1e-30", "9" * 20, "9" * 5000, str(2**32), "x"]
WORDS = ["x", "true", "None", "..", "{", "[]", "\u202e\u0394", "x" * 300, "x" * 5000, "a\nb"]


def fields_of(model):
    return sorted({action.dest for action in PARSERS[model]._actions} - {"help", "config"})


def values_for(model, field):
    action = next(action for action in PARSERS[model]._actions if action.dest == field)
    choices = [str(getattr(choice, "value", choice)) for choice in action.choices or []]
    return [*choices, *(NUMBERS if action.type in (int, float) else WORDS), "", None]


def attempt(call, *, what=""):
    """What a call gives; None where it is refused, which must be short and in one line.

    Args:
        what: the value that is tried, for the message of a failure.
    """
    try:
        return call()
    except InputError as error:
        text = str(error)
        assert text.strip(), what
        assert "\n" not in text, what
        assert len(text) <= 410 or text.startswith("(1) "), what
        return None
    except Exception as error:
        raise AssertionError(f"{ascii(what)[:200]} was not refused in one line") from error


# Every field of the first model, and what the others have beside.
CASES = {
    (model, field)
    for number, model in enumerate(PARSERS)
    for field in fields_of(model)
    if number == 0 or field not in fields_of(next(iter(PARSERS)))
}
