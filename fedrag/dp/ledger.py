"""What a site has spent of its questions' privacy: a file of events, each written before the training it stands for.

It holds what was done, never what it adds up to: epsilon is composed anew from all events, for the delta that is asked.
A training that is begun again is written again, since nobody can prove that nothing of the first left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from fedrag.dp.accounting import Event, epsilon_of
from fedrag.errors import StorageError
from fedrag.files import storage_errors, write_text

LEDGER_FILE = "privacy.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One component's training in one round.

    Attributes:
        run: Name of the run.
        round: Number of the round.
        component: What was trained.
        noise_multiplier: Standard deviation of the noise, in clip norms.
        sample_rate: Chance of each question, or subject, to be in a step.
        steps: Steps.
        units: Questions, or subjects, that could be in one.
        time: When it was written, in seconds since the epoch.
    """

    run: str
    round: int
    component: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    units: int
    time: float = 0.0

    @property
    def event(self) -> Event:
        """What epsilon depends on."""
        return Event(self.noise_multiplier, self.sample_rate, self.steps)


class PrivacyLedger:
    """The ledger of one site; several processes may write it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[Entry]:
        """Return all that was written, oldest first.

        Raises:
            StorageError: The file cannot be read: nobody knows what was spent.
        """
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
            return [_parsed(line) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(
                f"{self._path}: cannot be read ({type(error).__name__}), so nobody knows how much of epsilon is spent; "
                "put a copy of it back"
            ) from None

    def events(self, run: str | None = None) -> list[Event]:
        """Return the events of one run, or of all."""
        return [entry.event for entry in self.entries() if run is None or entry.run == run]

    def epsilon(self, delta: float, further: Sequence[Event] = (), run: str | None = None) -> float:
        """Return epsilon after all that was written and some further events; of one run, or of all."""
        return epsilon_of([*self.events(run), *further], delta)

    def write(self, entries: Sequence[Entry]) -> None:
        """Append entries, all or none.

        Raises:
            StorageError: They cannot be written, or the file cannot be read: the training must not begin.
        """
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._path.with_name(f".{self._path.name}.lock")):
                written = [*self.entries(), *entries]
                write_text(self._path, "".join(json.dumps(asdict(entry)) + "\n" for entry in written))


def entry_of(run: str, round_number: int, component: str, event: Event, units: int) -> Entry:
    """Return the entry of a training that begins now."""
    return Entry(
        run, round_number, component, event.noise_multiplier, event.sample_rate, event.steps, units, time.time()
    )


def _parsed(line: str) -> Entry:
    entry = Entry(**json.loads(line))
    numbers = (entry.noise_multiplier, entry.sample_rate, entry.steps)
    if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
        raise ValueError("an event has numbers that cannot be")
    return entry
