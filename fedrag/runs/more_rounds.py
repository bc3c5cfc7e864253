"""Gives a run more rounds than it had: it then goes on after its last round."""

from __future__ import annotations

import shutil

from fedrag.config.averaging import averaging_of
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.errors import ConfigError, RunError
from fedrag.files import write_text
from fedrag.runs.checkpoint import Checkpoint
from fedrag.runs.run_folder import RunFolder
from fedrag.text import plural

_OF_THE_END = ("results.json", "report.html", "delivery.json", "evaluation", "baselines", "home", "final")
"""What a run writes once its rounds are done. `final` is removed last: with it a run is finished."""


def extend_run(run: RunFolder, rounds: int) -> tuple[RunFolder, list[str]]:
    """Let a run, finished or not, have so many rounds in all; what was measured after its last round is removed.

    Its tensors, and what is then measured, have the bits of a run that had all rounds from the start if its learning
    rates depend on no number of rounds: `schedule = "constant"` and `warmup = 0` of each component that it trains.

    Returns:
        The run, and lines on what a reader must know.

    Raises:
        ConfigError: It has more rounds already, or its settings depend on their number.
        RunError: It has no checkpoint to go on from, and its result is not what its last round gave.
    """
    before = run.config.federation.rounds
    if rounds == before:
        return run, []
    if rounds < before:
        raise ConfigError(f"{run.path}: has {before} rounds; --rounds can only be larger, not {rounds}")
    if run.config.evaluation.rates:
        raise ConfigError(
            f"{run.path}: evaluation.rates chose its learning rates for {before} rounds; start a new run with "
            f"federation.rounds = {rounds}"
        )
    if run.is_finished:
        _require_checkpoint(run)
    tree = run.config.model_dump(mode="json")
    tree["federation"]["rounds"] = rounds
    config = Config.from_dict(tree, str(run.path / "scenario.toml"))
    for name in _OF_THE_END:
        path = run.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    run.record_facts(run.facts | {"extended": [*run.facts.get("extended", []), {"from": before, "to": rounds}]})
    write_text(run.path / "scenario.toml", config.to_toml())
    return RunFolder(run.path, config), _what_differs(config, before)


def _require_checkpoint(run: RunFolder) -> None:
    """Require what a finished run goes on from; where its checkpoints were removed, its result may be the last one."""
    if run.has_checkpoint and run.load_checkpoint()[0] is not None:
        return
    federation = run.config.federation
    optimizers = {averaging_of(federation, name).server_optimizer for name in trained_components(federation)}
    if federation.keep != "last" or optimizers != {"none"}:  # a server optimizer's memory is in no result
        raise RunError(f"{run.path}: has no checkpoint to go on from; start a new run with start_from = {run.path}")
    run.save_checkpoint(Checkpoint(federation.rounds, run.load_result(), {}, {}), {})


def _what_differs(config: Config, before: int) -> list[str]:
    """Say why an extended run is not one that had all rounds from the start, if it is not."""
    moving = [
        name
        for name in trained_components(config.federation)
        if (settings := getattr(config, name, None)) and (settings.schedule != "constant" or settings.warmup)
    ]
    if not moving:
        return []
    return [
        f"the learning rate of the {' and the '.join(moving)} was so far that of a run of {plural(before, 'round')}; "
        'with schedule = "constant" and warmup = 0 an extended run has the bits of one that had all rounds at once'
    ]
