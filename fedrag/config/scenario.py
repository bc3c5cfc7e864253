"""The scenario: what a federation shares, as one strict, frozen, typed tree read from TOML.

A site's own settings (the folder of its data, its policy) are never part of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import model_validator

from fedrag.config.combinations import check_combinations
from fedrag.config.rag_settings import Search
from fedrag.config.section import parse_toml, validate_section
from fedrag.config.settings import Settings
from fedrag.errors import ConfigError
from fedrag.files import read_text_file


class Config(Settings):
    """A whole scenario: its settings, which fit each other."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        """Refuse what cannot work together in two sections; a section refuses what cannot in itself."""
        check_combinations(self)
        return self

    @classmethod
    def from_toml(
        cls, text: str, source: str = "scenario", overrides: Sequence[str] = (), folder: Path | None = None
    ) -> Config:
        """Parse a scenario.

        Args:
            text: The TOML text.
            source: Its name in an error message, usually its path.
            overrides: `section.key=value` strings that change the text's settings.
            folder: The folder to which the text's `data.sites` is relative, if it is there; None: `data.sites` stays
                unchanged.

        Raises:
            ConfigError: The text is not TOML, a key is unknown, or a value is out of range.
        """
        tree = parse_toml(text, source)
        if folder is not None:
            _prefer_sites_in(tree, folder)
        for override in overrides:
            _apply_override(tree, override)
        return cls.from_dict(tree, source)

    @classmethod
    def from_dict(cls, tree: dict[str, Any], source: str = "scenario") -> Config:
        """Build a scenario from nested dictionaries, as `from_toml` does from text."""
        return validate_section(cls, tree, source)

    @classmethod
    def from_file(cls, path: Path | str, overrides: Sequence[str] = ()) -> Config:
        """Read a scenario file; its `data.sites` may be relative to its folder. See `from_toml`."""
        return cls.from_toml(read_scenario(path), str(path), overrides, Path(path).parent)

    def on_its_day(self) -> Config:
        """Return the scenario of a run that begins now, with the day that chat templates may show."""
        day = self.rag.date or datetime.now(UTC).date().isoformat()
        return self.model_copy(update={"rag": self.rag.model_copy(update={"date": day})})

    def searching_by(self, search: Search) -> Config:
        """Return the scenario with passages ranked in another way, to measure what it trained."""
        return self.model_copy(update={"rag": self.rag.model_copy(update={"search": search})})

    def to_toml(self) -> str:
        """Return the resolved scenario as TOML, with all defaults."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def read_scenario(path: Path | str) -> str:
    """Return the text of a scenario file.

    Raises:
        ConfigError: It cannot be read.
    """
    return read_text_file(path, ConfigError, "no such scenario file; fedrag new DIR writes one to start from")


def _prefer_sites_in(tree: dict[str, Any], folder: Path) -> None:
    """Make `data.sites` relative to the scenario's folder if it is there, whatever the working directory."""
    data = tree.get("data")
    sites = data.get("sites") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(sites, str) and sites and (folder / sites).is_dir():
        data["sites"] = str(folder / sites)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `section.key=value`; a value that is not TOML is a plain string."""
    path, equals, raw = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f'--set {override}: expected section.key=value, for example "federation.rounds=3"')
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section")
    tree[keys[-1]] = value
