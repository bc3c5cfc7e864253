"""Trackers follow a run while it goes on and after a resume, and never end it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_federation import SHIPPED, Lines, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import resume, simulate
from fedrag.tracking import follow
from fedrag.tracking.run_log import RunLog, Step


class Notes:
    """A tracker that notes what it is given; `before` is called with each round, and may raise."""

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self.place = "notes"
        self.given: list[int] = []
        self.figures: dict[str, float] = {}
        self.ends: list[bool] = []
        self.before = before

    def log(self, step: Step) -> None:
        self.before(step.number)
        self.given.append(step.number)

    def finish(self, log: RunLog, *, whole: bool) -> None:
        self.figures = log.figures()
        self.ends.append(whole)


def use(monkeypatch: pytest.MonkeyPatch, **trackers: Notes) -> None:
    for name, notes in trackers.items():
        monkeypatch.setitem(follow.TRACKERS, name, lambda log, notes=notes: notes)
    monkeypatch.setattr(follow, "find_spec", lambda name: name)


def config_of(*to: str) -> Config:
    return tiny_config(
        SHIPPED,
        data={"only": ["north", "south"]},
        federation={"rounds": 2, "schedule": "retriever"},
        evaluation={"split": "validation", "generate": False, "baselines": []},
        tracking={"to": list(to)},
    )


def test_each_round_is_given_when_it_is_done_and_the_figures_at_the_end(tiny_home, tmp_path, monkeypatch):
    logged: list[int] = []
    notes = Notes(lambda number: logged.append(len(RunFolder.open(tmp_path / "run").rounds())))
    use(monkeypatch, mlflow=notes)
    display = Lines()
    run = simulate(config_of("mlflow"), out=tmp_path / "run", display=display)
    assert (notes.given, logged, notes.ends) == ([1, 2], [1, 2], [True])
    assert notes.figures["federated/mrr"] == run.results()["federated"]["overall"]["mrr"]
    assert "tracked with mlflow: notes" in display.said


def test_a_run_that_is_resumed_is_given_from_its_first_round(tiny_home, tmp_path, monkeypatch):
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    first, second = Notes(interrupt), Notes()
    use(monkeypatch, wandb=first)
    with pytest.raises(KeyboardInterrupt):
        simulate(config_of("wandb"), out=tmp_path / "run")
    use(monkeypatch, wandb=second)
    resume(tmp_path / "run")
    assert (first.given, first.ends) == ([1], [False])
    assert (second.given, second.ends) == ([1, 2], [True])


def test_a_tracker_that_fails_is_left_out_with_one_line_and_the_run_goes_on(tiny_home, tmp_path, monkeypatch):
    def fail(number: int) -> None:
        raise ValueError("the store is full\nand more")

    failing, other = Notes(fail), Notes()
    use(monkeypatch, trackio=failing, wandb=other)

    def broken(log: RunLog) -> Notes:
        raise OSError("cannot be opened")

    monkeypatch.setitem(follow.TRACKERS, "mlflow", broken)
    display = Lines()
    run = simulate(config_of("mlflow", "trackio", "wandb"), out=tmp_path / "run", display=display)
    assert run.is_finished
    assert other.given == [1, 2]
    assert failing.ends == []
    assert [line for line in display.said if "left out" in line] == [
        "tracking with mlflow is left out from here on, and the run goes on: cannot be opened",
        "tracking with trackio is left out from here on, and the run goes on: the store is full",
    ]


def test_a_tracker_that_is_not_installed_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        simulate(config_of("trackio"), out=tmp_path / "run")
    assert str(refused.value) == "tracking with trackio needs its library; run: pip install 'fedrag[trackio]'"
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_shown_by_its_report_and_an_unfinished_one_is_not(tiny_home, tmp_path, monkeypatch):
    notes = Notes()
    use(monkeypatch, tensorboard=notes)
    run = simulate(config_of(), out=tmp_path / "run")
    result = CliRunner().invoke(app, ["report", str(run.path), "--to", "tensorboard"])
    assert result.exit_code == 0, result.output
    assert "tracked with tensorboard: notes" in result.output
    assert (notes.given, notes.ends) == ([1, 2], [True])
    (run.path / "final" / "state.safetensors").unlink()
    result = CliRunner().invoke(app, ["report", str(run.path), "--to", "tensorboard"])
    assert result.exit_code == 2
    assert "is not finished; tracking.to in its scenario follows a run" in result.stderr


def test_no_tracker_costs_nothing(tiny_home, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert simulate(config_of(), out=tmp_path / "run").is_finished
    assert "WANDB_MODE" not in __import__("os").environ
