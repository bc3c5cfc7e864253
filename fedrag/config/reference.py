"""Tables of all settings in a document, generated from the types and docstrings of the settings.

`python -m fedrag.config.reference simulations/README.md` regenerates the scenario's tables between their two markers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedrag.config.scenario import Config
from fedrag.errors import ConfigError

MODULE = "fedrag.config.reference"
END = "<!-- end of settings -->"

_NOUNS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}


def with_settings(text: str, settings: type[BaseModel] = Config, module: str = MODULE) -> str:
    """Return a document with the tables of settings between its markers.

    Args:
        text: The document.
        settings: The class of the settings; each section in it gets a table.
        module: The module that generates the tables; the first marker names it.

    Raises:
        ConfigError: The document lacks a marker.
    """
    first = f"<!-- settings: made by python -m {module} -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"expected the two lines {first} and {END}")
    tables = "\n".join(_section_lines(settings, None, ""))
    return f"{before}{begin}\n\n{tables}\n{END}{after}"


def _section_lines(section: type[BaseModel], defaults: BaseModel | None, name: str) -> Iterator[str]:
    """Yield a section's table, then the tables of the sections in it.

    Args:
        section: Its class.
        defaults: The section that a file gets if it does not name it; None: a file must name it.
        name: Its full name; "" for the whole file.
    """
    nested = {key: kind for key, field in section.model_fields.items() if (kind := _section_of(field))}
    plain = {key: field for key, field in section.model_fields.items() if key not in nested}
    if plain and name:
        yield f"### [{name}]\n\n{_one_line(section.__doc__)}\n"
    if plain:
        yield "| setting | type | default | meaning |\n| --- | --- | --- | --- |"
        for key, field in plain.items():
            default = "required" if field.is_required() else f"`{_as_toml(getattr(defaults, key, field.default))}`"
            yield f"| `{key}` | {_type_text(field)} | {default} | {_one_line(field.description)} |"
        yield ""
    for key, kind in nested.items():
        field = section.model_fields[key]
        inner = getattr(defaults, key, None) if field.is_required() else getattr(defaults, key, field.default)
        yield from _section_lines(kind, inner, f"{name}.{key}" if name else key)


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _type_text(field: FieldInfo) -> str:
    """Return the type and range of a setting, as the table shows them."""
    kind = field.annotation
    if get_origin(kind) is tuple:
        item = _plain(get_args(kind)[0])
        return "list of texts" if item is str else f"list of {_kind_text(item)}"
    if get_origin(kind) is dict:
        return "table of texts" if _plain(get_args(kind)[1]) is str else "table of whole numbers"
    limits: dict[str, float] = {}
    for item in field.metadata:
        limits |= {name: getattr(item, name) for name in ("ge", "gt", "le") if hasattr(item, name)}
    low = f"at least {limits['ge']:g}" if "ge" in limits else f"above {limits['gt']:g}" if "gt" in limits else ""
    high = f"at most {limits['le']:g}" if "le" in limits else ""
    return ", ".join(filter(None, [_kind_text(kind), low, high]))


def _plain(kind: Any) -> Any:
    """Return a type without what is written beside it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _kind_text(kind: Any) -> str:
    if get_origin(kind) in (UnionType, Union):
        return " or ".join("list of texts" if get_origin(one) is tuple else _kind_text(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(f'`"{value}"`' for value in get_args(kind))
    return _NOUNS[kind]


def _as_toml(value: Any) -> str:
    if isinstance(value, tuple | dict):  # in one line; JSON and TOML spell what occurs in them the same
        return json.dumps(value)
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def main(settings: type[BaseModel] = Config, module: str = MODULE) -> None:
    """Regenerate the tables in the document that the command line names."""
    path = Path(sys.argv[1])
    path.write_text(with_settings(path.read_text(encoding="utf-8"), settings, module), encoding="utf-8")


if __name__ == "__main__":
    main()
