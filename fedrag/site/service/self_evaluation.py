"""Measures newly delivered models on the site's own data, unasked, while the site is idle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from fedrag.errors import FedragError
from fedrag.service.children import Child
from fedrag.site.client_folder import INBOX
from fedrag.site.delivery import REPORT_FILE, RESULTS_FILE, Delivery, current_delivery, deliveries, models_folder
from fedrag.site.policy import is_quiet
from fedrag.site.site_config import SiteConfig

IDLE_S = 10.0
"""Seconds that the site must have been idle before it measures models."""

_COMMAND = (sys.executable, "-c", "from fedrag.cli.main import main; main()", "client", "evaluate", "--background")
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1"}


class SelfEvaluation:
    """Runs `fedrag client evaluate` in a process of its own, once per delivery.

    It starts after the reply to the delivery was sent, ends when another message arrives, and never starts in quiet
    hours. A failure costs one line on the terminal and a log file; the site serves on.

    Args:
        folder: The site's folder.
        config: Its site.toml.
        idle_s: Seconds that the site must have been idle.
    """

    def __init__(self, folder: Path, config: SiteConfig, idle_s: float = IDLE_S) -> None:
        self._folder = folder
        self._config = config
        self._idle_s = idle_s
        self._child = Child("evaluation", [*_COMMAND, str(folder)], folder / "logs" / "evaluation.log", _ENVIRONMENT)
        self._delivery: Delivery | None = None  # the one that is being measured
        self._done: list[Delivery] = []
        self._idle_since = time.monotonic()
        self._is_off = not config.evaluate

    def tend(self, say: Callable[[str], None]) -> None:
        """Start, follow or end the measuring; called in a loop."""
        if self._is_off:
            return
        try:
            self._tend(say)
        except (FedragError, OSError) as error:
            self._is_off = True
            say(f"delivered models are not measured any more: {error}")

    def end(self) -> None:
        """End the measuring."""
        self._child.end()

    def _tend(self, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        if (self._folder / INBOX).exists():  # a message is being worked on
            self._idle_since = now
            if self._delivery:
                self._child.end()
                self._delivery = None
        elif self._delivery:
            if not self._child.pid:
                say(self._outcome(self._delivery))
                self._done.append(self._delivery)
                self._delivery = None
                self._idle_since = now
        elif now > self._idle_since + self._idle_s:
            self._idle_since = now  # look again after the same wait
            self._delivery = self._next()
            if self._delivery:
                say(f"measuring {self._delivery.run} on this site's own test questions")
                self._child.start()

    def _next(self) -> Delivery | None:
        """Return the current delivery if it is not measured yet and may be measured now."""
        found = current_delivery(deliveries(self._folder))
        if found is None or found in self._done or is_quiet(self._config.policy, datetime.now().astimezone()):
            return None
        return None if (models_folder(self._folder, found.run) / RESULTS_FILE).is_file() else found

    def _outcome(self, delivery: Delivery) -> str:
        if self._child.exit_code == 0:
            return f"{delivery.run} is measured: {models_folder(self._folder, delivery.run) / REPORT_FILE}"
        return f"{delivery.run} could not be measured: {self._child.log}"
