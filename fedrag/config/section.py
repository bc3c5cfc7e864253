"""A section of settings, and how its TOML text is parsed: for a scenario, a site.toml, a server.toml."""

from __future__ import annotations

import tomllib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedrag.config.validation_errors import explain
from fedrag.errors import ConfigError


class Section(BaseModel):
    """A group of settings: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


S = TypeVar("S", bound=Section)


def parse_section(kind: type[S], text: str, source: str) -> S:
    """Parse the TOML text of a section that has a file of its own.

    Args:
        kind: The section.
        text: The TOML text.
        source: Its name in an error message, usually its path.

    Raises:
        ConfigError: The text is not TOML, a key is unknown, or a value is out of range.
    """
    return validate_section(kind, parse_toml(text, source), source)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse a TOML text into nested dictionaries.

    Args:
        text: The TOML text.
        source: Its name in an error message, usually its path.

    Raises:
        ConfigError: The text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from None


def validate_section(kind: type[S], tree: dict[str, Any], source: str) -> S:
    """Build a section from nested dictionaries.

    Args:
        kind: The section.
        tree: Its settings, as parsed from TOML.
        source: Its name in an error message, usually its path.

    Raises:
        ConfigError: A key is unknown, or a value is out of range.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, kind)}") from None
