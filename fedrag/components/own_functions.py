"""Losses and an aggregation rule of one's own, as a scenario names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedrag.config.own_settings import OwnConfig
from fedrag.errors import ConfigError, RunError
from fedrag.federation.aggregation import Rule
from fedrag.runs.run_folder import RunFolder
from fedrag.security.module_source import source_sha256

if TYPE_CHECKING:
    from fedrag.training.losses import Losses

_MARK = "__fedrag_sha256__"  # on the module: the hash of the source that was imported

LOSSES = ("answer", "contrastive", "lsr")


def own_losses(own: OwnConfig, usual: Losses) -> Losses:
    """Return the losses that a scenario names, and the usual ones in place of those that it does not.

    Raises:
        ConfigError: The module is not installed here, or has no such function.
    """
    return replace(usual, **{name: _function(own, name) for name in LOSSES if getattr(own, name)})


def own_rule(own: OwnConfig) -> Rule | None:
    """Return the aggregation rule that a scenario names; None where it names none.

    Raises:
        ConfigError: The module is not installed here, or has no such function.
    """
    return _function(own, "rule") if own.rule else None


def own_facts(own: OwnConfig) -> dict[str, Any]:
    """Return what a run records of them: the functions by what they are, and the hash of their module's source.

    Raises:
        ConfigError: The module is not installed here, or lacks a function.
    """
    if not own.module:
        return {}
    names = [name for name in (*LOSSES, "rule") if getattr(own, name)]
    for name in names:
        _function(own, name)
    functions = {f"losses.{name}" if name in LOSSES else name: f"{own.module}.{getattr(own, name)}" for name in names}
    return {"own": functions, "own_module": {"name": own.module, "sha256": source_sha256(own.module)}}


def require_same_functions(run: RunFolder) -> None:
    """Refuse to go on with a run whose module is no longer installed here, or is another.

    Raises:
        RunError: That is so.
    """
    recorded, own = run.facts.get("own_module"), run.config.own
    if recorded is None:
        return
    try:
        now = source_sha256(own.module)
    except ConfigError as error:
        raise RunError(f"{run.path}: cannot be resumed without its own functions: {error}") from None
    if now != recorded["sha256"]:
        raise RunError(
            f"{run.path}: cannot be resumed: the source of {own.module} changed (sha256 {recorded['sha256'][:12]}..., "
            f"now {now[:12]}...); put it back, or start a new run"
        )


def _function(own: OwnConfig, what: str) -> Callable[..., Any]:
    sha256, name = source_sha256(own.module), getattr(own, what)
    try:
        module = import_module(own.module)
    except Exception as error:  # whatever the module raises while it is read
        raise ConfigError(f"own.module: {own.module} cannot be imported: {type(error).__name__}") from error
    if module.__dict__.setdefault(_MARK, sha256) != sha256:
        raise ConfigError(f"own.module: {own.module} changed since this process imported it; start the process again")
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"own.{what}: {own.module} has no function {name}")
    return function  # type: ignore[no-any-return]  # a module's attribute
