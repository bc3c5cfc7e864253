"""The one driver of a run, in a simulation and in a deployment: rounds, adapters, result."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from flwr.serverapp import Grid

from fedrag.components.export import export_models
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.display import Display, Quiet
from fedrag.federation.aggregation import Rule
from fedrag.federation.exchange import Federation
from fedrag.federation.rounds import run_rounds
from fedrag.runs.run_folder import RunFolder
from fedrag.types import State

OpenGrid = Callable[[], AbstractContextManager[Grid]]
"""Opens the grid that reaches the sites; it is closed before the result is written."""


def federate(
    run: RunFolder,
    open_grid: OpenGrid,
    *,
    components: Components = SHIPPED,
    rule: Rule | None = None,
    display: Display = Quiet(),
    idle_rounds: Collection[int] = (),
    on_round: Callable[[], None] = lambda: None,
    start: State | None = None,
) -> State:
    """Run the rounds that are left, keep the result and return it; a finished run is only read.

    Args:
        run: Where checkpoints and the log go; a run that was interrupted goes on after its last one.
        open_grid: Opens the only way to the sites.
        components: What can be trained, by name.
        rule: An aggregation rule of one's own instead of the weighted mean.
        display: Shows lines and progress.
        idle_rounds: Rounds in which nobody trains, and the state stays as it is.
        on_round: Called before the first round and after each, when the run's log holds it.
        start: Tensors of an earlier run, by component, that take the place of new ones; None: those that the run keeps.

    Raises:
        QuorumError: Too few sites gave a valid reply; the last checkpoint stands.
    """
    if run.is_finished:
        return run.load_result()
    begun = run.load_start() if start is None else start
    with open_grid() as grid:
        federation = Federation(grid, run, components, rule, display, idle_rounds, on_round, begun)
        state = run_rounds(federation)
    export_models(run.config, state, run.path / "final", components, copies=False)
    run.save_result(state)
    return state
