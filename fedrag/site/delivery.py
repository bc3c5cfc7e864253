"""The models that a site received, and which of them are current.

```
DIR/models/
  current.json   the deliveries, oldest first; the last one that is adopted, and was not taken back, is current
  <run>/         generator.safetensors  retriever.safetensors  scenario.toml
                 results.json  report.html    how good they are on the site's own questions, once measured
```
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedrag.config.scenario import Config, read_scenario
from fedrag.errors import ConfigError, MessageError, ModelError, RunError
from fedrag.files import read_json, replacing_folder, sha256_of, write_json
from fedrag.locks import in_turn
from fedrag.retrieval.index_cache import INDEXES
from fedrag.site.refusal import DeliveryRefused
from fedrag.types import Component, State, Tensors
from fedrag.weights.store import find_model

MODELS = "models"
HISTORY_FILE = "current.json"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""A run's name becomes a folder's name, so it must not lead out of the folder; no run's name has a dot."""

HOME = ".home"
"""Ends the name of models that the site trained on at home; no run's name has a dot."""

MOST_DELIVERIES = 100
"""Deliveries that a site keeps: a coordinator that sends ever more of them does not fill its disk."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The record of a delivery.

    Attributes:
        run: Name of the run; of a second delivery under it, `<run>.2`.
        time: Local time, ISO 8601.
        sha256: Hash of the file of each component.
        models: What is recorded of the base models on which it was trained, by their keys in [models].
        taken_back: Whether the site went back to the models before it.
        adopted: Whether the site took it into use; false: it waits.
        verdict: How it did on the site's validation questions, as `fedrag.site.adoption` records it; empty before.
        scenario: Hash of the scenario; empty in lists that an earlier version wrote.
        home: How it went when it was trained on at home, as `fedrag.site.home_delivery` notes it; empty: it was not.
    """

    run: str
    time: str
    sha256: dict[str, str]
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    taken_back: bool = False
    adopted: bool = True
    verdict: dict[str, Any] = field(default_factory=dict)
    scenario: str = ""
    home: dict[str, Any] = field(default_factory=dict)

    @property
    def is_home(self) -> bool:
        """Whether this site made it, by training a delivery on at home."""
        return self.run.endswith(HOME)

    @property
    def is_to_be_judged(self) -> bool:
        """Whether it waits to be measured."""
        return not (self.adopted or self.taken_back or self.verdict)

    @property
    def components(self) -> tuple[Component, ...]:
        """The delivered components; the others stay as they were fetched."""
        return tuple(self.sha256)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Delivered models, loaded.

    Attributes:
        run: Name of the run.
        folder: The folder of its models.
        config: The run's scenario.
        state: Tensors by component.
    """

    run: str
    folder: Path
    config: Config
    state: State

    @property
    def indexes(self) -> Path:
        """The folder of the site's indexes."""
        return self.folder.parent.parent / INDEXES


def save_delivery(
    folder: Path,
    run: str,
    state: State,
    scenario: str,
    models: dict[str, dict[str, str]] | None = None,
    *,
    adopts: bool = True,
) -> None:
    """Save delivered models, never over those of an earlier delivery.

    The same models once more change nothing: what was taken back, or waits, does not come into use by itself. Others
    under the name of a run that is here are kept beside it, as `<run>.2`; where the site went back from that run, or
    from the same models under another name, they arrive taken back, and only a person takes them into use.

    Args:
        folder: The site's folder.
        run: Name of the run.
        state: Tensors by component.
        scenario: The run's scenario as TOML.
        models: What is recorded of its base models, if they are here.
        adopts: Whether they are current at once; false: they wait.

    Raises:
        MessageError: The run's name cannot be a folder's.
        DeliveryRefused: There are `MOST_DELIVERIES` already.
        StorageError: The models cannot be written; those that were current still are.
    """
    if not _RUN.fullmatch(run):
        raise MessageError(f"run = {run!r}: expected at most 100 letters, digits, hyphens and underscores")
    digests = {str(component): hashlib.sha256(save(tensors)).hexdigest() for component, tensors in state.items()}
    told = hashlib.sha256(scenario.encode()).hexdigest()
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    with changing(folder) as found:
        came = [delivery for delivery in found if not delivery.is_home]
        of_the_run = [delivery for delivery in came if delivery.run.partition(".")[0] == run]
        of_these = (one for one in of_the_run if one.sha256 == digests and _scenario_hash(folder, one) in ("", told))
        if same := next(of_these, None):
            if not _is_intact(folder, same, scenario):
                write_models(models_folder(folder, same.run), state, scenario)
            return
        if len(came) >= MOST_DELIVERIES:
            raise DeliveryRefused("deliveries-full", f"{MOST_DELIVERIES} deliveries are here; fedrag client purge")
        names = {delivery.run for delivery in of_the_run}
        name = run if not names else next(n for i in count(2) if (n := f"{run}.{i}") not in names)
        taken_back = any(one.taken_back and (one in of_the_run or one.sha256 == digests) for one in found)
        write_models(models_folder(folder, name), state, scenario)
        found.append(Delivery(name, time, digests, models or {}, taken_back, adopts and not taken_back, {}, told))


def write_models(folder: Path, state: State, scenario: str) -> dict[str, str]:
    """Write models and the scenario of their run into a folder, and return the hash of each component's file."""
    files = {component: save(tensors) for component, tensors in state.items()}
    with replacing_folder(folder) as partial:
        for component, content in files.items():
            (partial / f"{component}.safetensors").write_bytes(content)
        (partial / "scenario.toml").write_text(scenario, encoding="utf-8")
    return {component: hashlib.sha256(content).hexdigest() for component, content in files.items()}


def _scenario_hash(folder: Path, delivery: Delivery) -> str:
    """Return the hash of a delivery's scenario; an earlier version did not record it, and the file may be gone."""
    path = models_folder(folder, delivery.run) / "scenario.toml"
    return delivery.scenario or (sha256_of(path) if path.is_file() else "")


def _is_intact(folder: Path, delivery: Delivery, scenario: str) -> bool:
    """Return whether the files of a delivery are what was delivered."""
    path = models_folder(folder, delivery.run)
    with suppress(OSError, UnicodeDecodeError):
        return (path / "scenario.toml").read_text(encoding="utf-8") == scenario and all(
            sha256_of(path / f"{component}.safetensors") == digest for component, digest in delivery.sha256.items()
        )
    return False


def deliveries(folder: Path) -> list[Delivery]:
    """Return a site's deliveries, oldest first.

    Raises:
        RunError: The list cannot be read.
    """
    path = folder / MODELS / HISTORY_FILE
    if not path.is_file():
        return []
    try:
        return [Delivery(**entry) for entry in read_json(path)["history"]]
    except (KeyError, TypeError):
        raise RunError(f"{path}: expected the list of the deliveries") from None


@contextmanager
def changing(folder: Path) -> Iterator[list[Delivery]]:
    """Yield the list of deliveries to be changed, and write it; one process at a time.

    Raises:
        RunError: The list cannot be read.
        StorageError: It cannot be written.
    """
    with in_turn(folder / MODELS):
        found = deliveries(folder)
        yield found
        if found:
            write_json(folder / MODELS / HISTORY_FILE, {"history": [asdict(delivery) for delivery in found]})
        else:
            (folder / MODELS / HISTORY_FILE).unlink(missing_ok=True)


def current_delivery(found: Sequence[Delivery]) -> Delivery | None:
    """Return the last delivery that is adopted and was not taken back; None: the untouched models are current."""
    return next((delivery for delivery in reversed(found) if delivery.adopted and not delivery.taken_back), None)


def roll_back(folder: Path) -> tuple[Delivery, Delivery | None]:
    """Roll back to the models delivered before the current ones, or to the untouched ones.

    The same models of the same scenario under the name of another run are taken back with them.

    Returns:
        The delivery that was taken back, and the one that is current now; None: the untouched models.

    Raises:
        ConfigError: The untouched models are current already.
    """
    if current_delivery(deliveries(folder)) is None:
        raise ConfigError(f"{folder}: the untouched models are current; there is nothing to go back to")
    with changing(folder) as found:
        current = current_delivery(found)
        assert current is not None
        same = (current.sha256, current.scenario)
        found[:] = [replace(one, taken_back=True) if (one.sha256, one.scenario) == same else one for one in found]
    return current, current_delivery(found)


def remove_deliveries(folder: Path, runs: Sequence[str]) -> None:
    """Remove runs from the list of deliveries, and the list itself once it is empty."""
    if (folder / MODELS).is_dir():
        with changing(folder) as found:
            found[:] = [delivery for delivery in found if delivery.run not in runs]


def open_current(folder: Path) -> Delivered:
    """Load the delivered models that are current at a site.

    Raises:
        ModelError: The untouched models are current, or the delivered ones are missing or altered, or were trained on
            other base models than are here now.
        RunError: The list of deliveries, or the run's scenario, cannot be read.
    """
    found = deliveries(folder)
    current = current_delivery(found)
    if current is None:
        raise ModelError(f"{folder}: {_why_none(found)}")
    return open_delivery(folder, current)


def open_latest(folder: Path) -> Delivered:
    """Load the models that are current, or else those that were delivered last, for their scenario.

    Raises:
        ModelError: None were delivered, or see `open_current`.
    """
    found = deliveries(folder)
    if not found:
        raise ModelError(f"{folder}: {_why_none(found)}")
    return open_delivery(folder, current_delivery(found) or found[-1])


def _why_none(found: Sequence[Delivery]) -> str:
    """Return why no delivered models are current."""
    if not found:
        return "no models were delivered yet"
    if all(delivery.taken_back for delivery in found):
        return "all delivered models were taken back"
    return "no delivered models are adopted (see fedrag client models)"


def open_delivery(folder: Path, delivery: Delivery) -> Delivered:
    """Load delivered models, current or not; see `open_current`."""
    path = models_folder(folder, delivery.run)
    scenario = path / "scenario.toml"
    try:
        config = Config.from_toml(read_scenario(scenario), str(scenario))
    except ConfigError as error:
        raise RunError(f"{error}; go back with: fedrag client rollback {folder}") from None
    from fedrag.runs.facts import changed_models, model_facts  # imports torch: 400 MB in a service that only lists them

    now = {key: model_facts(find_model(told["name"])) for key, told in delivery.models.items()}
    if changed := changed_models(delivery.models, now):
        raise ModelError(
            f"{path}: its base models changed since it was delivered: {changed}; fetch again what was there, or go "
            f"back with: fedrag client rollback {folder}"
        )
    return Delivered(delivery.run, path, config, {c: _tensors(folder, delivery, c) for c in delivery.components})


def models_folder(folder: Path, run: str) -> Path:
    """Return the folder of a run's models."""
    return folder / MODELS / run


def _tensors(folder: Path, delivery: Delivery, component: Component) -> Tensors:
    path = models_folder(folder, delivery.run) / f"{component}.safetensors"
    try:
        if sha256_of(path) == delivery.sha256[component]:
            return load_file(path)
        reason = "is not what was delivered"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except SafetensorError as error:
        reason = f"cannot be read: {error}"
    raise ModelError(f"{path}: {reason}; go back with: fedrag client rollback {folder}")
