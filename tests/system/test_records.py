import copy
import json
import re
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from helpers.results import saved_results
from hfprobe.system.errors import InputError
from hfprobe.system.records import to_json

RESULTS = saved_results()


def record_of(result):
    """What the file holds of a result."""
    return getattr(result, "saved", result)


def records_in(value, *path):
    """The records that a record contains, itself included, each with its path in the file."""
    if is_dataclass(value):
        yield path, value
        value = {field.name: getattr(value, field.name) for field in fields(value) if field.compare}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from records_in(item, *path, key if isinstance(value, list) else str(key))


def wrong_files(record):
    """A file with one wrong value, and what the message says about it; every field of every record in turn."""
    content = json.loads(json.dumps(to_json(record)))
    for path, found in records_in(record):
        changed = copy.deepcopy(content)
        inside = changed
        for key in path:
            inside = inside[key]
        start = "".join(f"{key}." for key in path)
        inside["other"] = 1
        yield changed, f"'{start}other' is unknown; allowed: {', '.join(list(inside)[:-1])}. "
        del inside["other"]
        for name, wanted in get_type_hints(type(found)).items():
            if name in inside:
                value = inside.pop(name)
                yield changed, f"'{start}{name}' is missing. "
                if wanted is not Any:
                    inside[name] = [[None]]
                    yield changed, f"'{start}{name}"
                if wanted is not Any and NoneType not in get_args(wanted):
                    inside[name] = None
                    yield changed, f"'{start}{name}' is None; allowed: "
                inside[name] = value


@pytest.mark.parametrize("name", RESULTS)
def test_a_saved_result_loads_unchanged(name, tmp_path):
    RESULTS[name].save(tmp_path)
    loaded = type(RESULTS[name]).load(tmp_path)
    assert record_of(loaded) == record_of(RESULTS[name])
    assert json.loads((tmp_path / name).read_text()) == json.loads(json.dumps(to_json(record_of(loaded))))


@pytest.mark.hostile
@pytest.mark.parametrize("name", RESULTS)
def test_a_file_with_one_wrong_value_is_refused_in_one_line(name, tmp_path):
    RESULTS[name].save(tmp_path)
    text = (tmp_path / name).read_text()
    damaged = [(json.dumps(content), said) for content, said in wrong_files(record_of(RESULTS[name]))]
    assert len(damaged) > 20
    damaged += [(text[:-3], ""), ("", ""), ("[]", "it is []; allowed: a JSON object. ")]
    damaged += [("NaN", "it is 'NaN'; allowed: a JSON object. ")]
    for wrong, said in damaged:
        (tmp_path / name).write_text(wrong)
        with pytest.raises(InputError, match=re.escape(f"is damaged: {said}")) as caught:
            type(RESULTS[name]).load(tmp_path)
        assert caught.value.exit_code == 2
        assert re.fullmatch(r".+ (Make it: hfprobe|Delete it, or pass) .+", str(caught.value))  # one line


@pytest.mark.parametrize("name", RESULTS)
def test_a_folder_without_a_result_is_an_input_error(name, tmp_path):
    for folder in (tmp_path, tmp_path / "none", tmp_path / (300 * "x")):
        with pytest.raises(InputError, match=re.escape("holds no ")):
            type(RESULTS[name]).load(folder)
