"""Settings in a YAML file: what `--config` reads, and what each run leaves in its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hfprobe.settings.values import check_values
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.files import write_beside

# Plain values as YAML 1.2 and JSON have them. PyYAML reads YAML 1.1: 2e-3 is a text, and `no` and `off` are false.
SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class _Reader(yaml.SafeLoader):
    """Plain values only; a key that is set twice and an alias are errors."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"'{shorten(key.value)}' is set twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few lines of them stand for a list of any length
            raise yaml.MarkedYAMLError(problem="an alias is not allowed", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _Writer(yaml.SafeDumper):
    """Puts quotes round a text that YAML 1.1 or 1.2 reads as something else."""


for _name, (_pattern, _first) in SCALARS.items():
    for _class in (_Reader, _Writer):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def read_config_file(path: str | Path, *, model: str | None = None) -> dict[str, Any]:
    """The settings that a file sets, under their long names; `model` and `recipe` may be among them.

    Args:
        model: of the run, where it is not the file's.

    Raises:
        InputError: no such file; not YAML, or not a mapping; unknown or repeated name; see `check_values`.
    """
    where = f"'{shorten(path)}'"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # a null character, bytes that are not UTF-8
        raise InputError(
            f"--config {where} cannot be read: {getattr(error, 'strerror', None) or error}. Pass a YAML file."
        ) from error
    try:
        found = yaml.load(text, Loader=_Reader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        remedy = "Write each setting once, as 'epochs: 3'."
        raise InputError(f"{where}{line}: {shorten(error.problem)}. {remedy}") from error
    except Exception as error:  # a value that its tag does not fit raises many kinds
        raise InputError(f"{where} is not YAML: {shorten(first_line(error))}.") from error
    if not isinstance(found, dict):
        kind = {list: "a list", type(None): "nothing"}.get(type(found), "one value")
        raise InputError(f"{where} holds {kind}; allowed: settings, one per line, as 'epochs: 3'.")
    try:
        return check_values(found, model=found.get("model", "cnn") if model is None else model)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def write_config_file(path: Path, settings: dict[str, Any]) -> None:
    """Write settings, as `RunConfig.to_settings` gives them, as a file that `read_config_file` reads."""
    text = yaml.dump(settings, Dumper=_Writer, sort_keys=False, allow_unicode=True)
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))
