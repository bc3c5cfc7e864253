"""The run folder: everything that a run used and found, written so that it survives a crash.

```
runs/<scenario>-<n>/
  .lock                  held by the process that works on the run
  scenario.toml          the resolved scenario
  run.json               format, versions, hashes of models and data, threads, number format
  rounds.jsonl           a line per round
  checkpoints/round-<r>/ state.safetensors, state.json; the last three
  start.safetensors      the result of the earlier run that this one started from, if it did
  secure_sums.json       for whose sum sites were last asked to reveal, in a run with secure sums
  sites.json             each site's greeting: version, numbers of questions, policy
  diagnosis/             why answers are wrong, where that was asked: fedrag diagnose, and told.json, what sites told
  delivery.json          the sites that received the result
  final/                 state.safetensors: what was trained; generator/: an adapter for PEFT, and its README
  home/<site>/           what a site of a simulation keeps of its training at home, where it trained at home
  evaluation/            the measured questions, one by one
  results.json           the means over them
  report.html            the page about the run
```
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedrag.config.scenario import Config, read_scenario
from fedrag.errors import ConfigError, RunError, StorageError
from fedrag.files import read_json, replacing_folder, sha256_of, storage_errors, write_json, write_text
from fedrag.locks import LOCK_FILE, held_alone
from fedrag.runs.checkpoint import Checkpoint, join_tensors, read_checkpoint, split_tensors
from fedrag.types import State

Moment = Literal["before", "after"]
"""Before the first round, or after the last one."""

FORMAT = 2
KEPT_CHECKPOINTS = 3


class RunFolder:
    """A run on disk; see `create` and `open`.

    Args:
        path: The folder, which must hold a run.
        config: The run's scenario.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(
        cls, config: Config, path: Path | None = None, root: Path = Path("runs"), *, exist_ok: bool = False
    ) -> RunFolder:
        """Create a run folder at `path`, or at the next free `<root>/<scenario>-<n>`.

        Args:
            config: The scenario.
            path: The folder.
            root: The folder of numbered run folders.
            exist_ok: Use a folder that a crash left incomplete.

        Raises:
            RunError: `path` exists and is not empty.
        """
        if path is None:
            path = _reserve_next(root, config.name)
        elif not exist_ok:
            require_unused(path)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, config)
            try:
                write_text(path / "scenario.toml", config.to_toml())
            except StorageError:
                run.discard_if_unbegun()
                raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run; its configuration comes from the folder alone.

        Raises:
            RunError: There is no run, or this version cannot read it.
        """
        scenario, facts = path / "scenario.toml", path / "run.json"
        if not scenario.is_file():
            raise RunError(
                f"{path}: is no run folder (it has no scenario.toml); fedrag simulate makes runs/<scenario>-<n>"
            )
        if facts.is_file():
            found = read_json(facts).get("format")
            if found != FORMAT:
                raise RunError(f"{path}: was written in run format {found}, this fedrag reads format {FORMAT}")
        try:
            # not from_file: a folder `sites` in a run folder holds caches, not the data
            text = read_scenario(scenario)
            # A scenario without this setting is of 0.1, where all weights meant the token embeddings, too.
            old = [] if "token_embeddings" in text else ["retriever.token_embeddings=true"]
            return cls(path, Config.from_toml(text, str(scenario), old))
        except ConfigError as error:
            raise RunError(f"{path}: cannot be read by this version of fedrag: {error}") from None

    @property
    def facts(self) -> dict[str, Any]:
        """The recorded versions, models, data and machine of the run."""
        path = self.path / "run.json"
        return read_json(path) if path.is_file() else {}

    def record_facts(self, facts: dict[str, Any]) -> None:
        """Record the run's facts, and the format of the folder."""
        write_json(self.path / "run.json", {"format": FORMAT, **facts})

    def save_checkpoint(self, checkpoint: Checkpoint, record: dict[str, Any]) -> None:
        """Write a checkpoint whole or not at all, log its round, and drop old checkpoints.

        Args:
            checkpoint: The state after the round.
            record: The round's line in rounds.jsonl; the checkpoint holds it too, so that a crash between the two
                writes loses nothing.
        """
        folder = self.path / "checkpoints" / f"round-{checkpoint.round_number:04d}"
        with replacing_folder(folder) as partial:
            save_file(checkpoint.tensors(), partial / "state.safetensors")
            facts = {
                "format": FORMAT,
                "round": checkpoint.round_number,
                "sha256": sha256_of(partial / "state.safetensors"),
                "best_scores": checkpoint.best_scores,
                "record": record,
            }
            write_json(partial / "state.json", facts)
        self._log_round(record)
        for old in self._checkpoint_folders()[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)

    def load_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest intact checkpoint, and a line about each damaged one.

        The round log is cut to the checkpoint's round.
        """
        warnings: list[str] = []
        for folder in reversed(self._checkpoint_folders()):
            try:
                checkpoint, record = read_checkpoint(folder)
            except (OSError, ValueError, KeyError, SafetensorError, RunError) as error:
                warnings.append(f"{folder}: damaged, the checkpoint before is used ({error})")
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._cut_log(checkpoint.round_number, record)
            return checkpoint, warnings
        self._cut_log(0, None)
        return None, warnings

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, intact or not."""
        return bool(self._checkpoint_folders())

    @property
    def has_begun(self) -> bool:
        """Whether there is something to resume from: a checkpoint, or learning rates that were tried."""
        return self.has_checkpoint or (self.path / "tries").is_dir()

    def discard_if_unbegun(self) -> None:
        """Remove the folder of a run that failed before there was anything to resume from."""
        if not self.has_begun:
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def is_finished(self) -> bool:
        """Whether all rounds are done and the result is saved."""
        return (self.path / "final" / "state.safetensors").is_file()

    @property
    def is_delivered(self) -> bool:
        """Whether the result was sent to the sites."""
        return (self.path / "delivery.json").is_file()

    def record_sites(self, told: dict[str, dict[str, Any]]) -> None:
        """Record the greetings of the sites, by name."""
        write_json(self.path / "sites.json", told)

    def save_start(self, state: State) -> None:
        """Keep the tensors that the run starts from: the run that they are from may be gone when they are needed."""
        with storage_errors(self.path):
            partial = self.path / ".start.partial"
            save_file(join_tensors("state", state), partial)
            partial.replace(self.path / "start.safetensors")

    def load_start(self) -> State:
        """Return the tensors of an earlier run that this one starts from, by component; none where it starts anew.

        Raises:
            RunError: They are damaged.
        """
        path = self.path / "start.safetensors"
        return _read_state(path) if path.is_file() else {}

    @property
    def told_by_sites(self) -> dict[str, dict[str, Any]]:
        """The greetings of the sites, by name: `version`, `counts` and, in newer runs, `policy`."""
        path = self.path / "sites.json"
        return read_json(path) if path.is_file() else {}

    def record_diagnosis(self, moment: Moment, told: dict[str, dict[str, float]]) -> None:
        """Record what sites told of why their answers are wrong, by name, before the first round or after the last."""
        write_json(self.path / "diagnosis" / "told.json", {**self.told_diagnoses, moment: told})

    @property
    def told_diagnoses(self) -> dict[Moment, dict[str, dict[str, float]]]:
        """The counts that sites told, by moment and site."""
        path = self.path / "diagnosis" / "told.json"
        return read_json(path) if path.is_file() else {}  # type: ignore[return-value]  # as they were written

    def record_delivery(self, sites: list[str]) -> None:
        """Record the sites that received the result."""
        write_json(self.path / "delivery.json", {"delivered_to": sorted(sites)})

    @property
    def delivered_to(self) -> list[str]:
        """The names of the sites that received the result."""
        names: list[str] = read_json(self.path / "delivery.json")["delivered_to"] if self.is_delivered else []
        return names

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a finished run, which has its result."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def save_result(self, state: State) -> None:
        """Save the resulting tensors; exports for other libraries are made from them."""
        with storage_errors(self.path):
            (self.path / "final").mkdir(exist_ok=True)
            partial = self.path / "final" / ".state.partial"
            save_file(join_tensors("state", state), partial)
            partial.replace(self.path / "final" / "state.safetensors")

    def load_result(self) -> State:
        """Return the resulting tensors.

        Raises:
            RunError: The run is not finished.
        """
        path = self.path / "final" / "state.safetensors"
        if not self.is_finished:
            raise RunError(f"{self.path}: is not finished; go on with: fedrag simulate --resume {self.path}")
        return _read_state(path)

    def results(self) -> dict[str, Any]:
        """Return the measured means: `overall` and `sites` for each of `untouched`, `local`, `federated`, `pooled`.

        Raises:
            RunError: The run is not finished.
        """
        path = self.path / "results.json"
        if not path.is_file():
            raise RunError(f"{self.path}: is not finished; go on with: fedrag simulate --resume {self.path}")
        return read_json(path)

    def identity(self) -> dict[str, Any]:
        """Return what identifies the run."""
        return {
            "name": self.path.resolve().name,
            "scenario": self.config.name,
            "seed": self.config.seed,
            "fedrag": self.facts.get("fedrag"),
            "models": self.facts.get("models"),
        }

    def rounds(self) -> list[dict[str, Any]]:
        """Return the logged rounds, without a half-written last line."""
        path = self.path / "rounds.jsonl"
        records = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def _log_round(self, record: dict[str, Any]) -> None:
        if record:
            with storage_errors(self.path), (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def _cut_log(self, round_number: int, record: dict[str, Any] | None) -> None:
        kept = [line for line in self.rounds() if line["round"] <= round_number]
        if record and (not kept or kept[-1]["round"] < round_number):
            kept.append(record)
        if kept or (self.path / "rounds.jsonl").exists():
            write_text(self.path / "rounds.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def _checkpoint_folders(self) -> list[Path]:
        folders = (self.path / "checkpoints").glob("round-[0-9]*")
        return sorted(folders, key=lambda folder: (len(folder.name), folder.name))


def _read_state(path: Path) -> State:
    try:
        return split_tensors("state", load_file(path))
    except (SafetensorError, ValueError) as error:
        raise RunError(f"{path}: is damaged: {error}") from None


def require_unused(path: Path) -> None:
    """Refuse a path that holds something; the lock of a run that was not begun is nothing.

    Raises:
        RunError: There is a file, or a folder that is not empty.
    """
    if path.exists() and (not path.is_dir() or any(entry.name != LOCK_FILE for entry in path.iterdir())):
        raise RunError(f"{path}: exists already; choose another --out, or go on with --resume {path}")


def alone_in_run(path: Path) -> AbstractContextManager[None]:
    """Hold a run folder for the one process that works on it; raise RunError where another does."""
    return held_alone(path, RunError(f"{path}: another fedrag works on this run; let it end, or stop it first"))


def _reserve_next(root: Path, name: str) -> Path:
    """Make the folder `<root>/<name>-<n>` of the next free number, which no other process then takes."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+)")
    taken = [int(m[1]) for p in root.glob(f"{name}-*") if (m := pattern.fullmatch(p.name))]
    for number in itertools.count(max(taken, default=0) + 1):
        path = root / f"{name}-{number}"
        with storage_errors(path):
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                continue
    raise AssertionError("there is always a next number")
