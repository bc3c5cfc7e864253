"""Measures newly delivered models on the site's own data, and trains them on at home, unasked, while it is idle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedrag.errors import FedragError
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.service.children import Child
from fedrag.site.adoption import Verdict, record_verdict, verdict_line
from fedrag.site.client_folder import INBOX
from fedrag.site.delivery import REPORT_FILE, RESULTS_FILE, Delivery, current_delivery, deliveries, models_folder
from fedrag.site.home_delivery import due_at_home, home_line
from fedrag.site.policy import refusal_of_work
from fedrag.site.site_config import SiteConfig
from fedrag.site.work_ledger import LEDGER_FILE, SYSTEM_CLOCK, Clock, WorkLedger
from fedrag.site.work_meter import PolicyEndsWork, WorkMeter

IDLE_S = 10.0
"""Seconds that the site must have been idle before it measures models."""
TRIES = 2
"""How often it tries to judge a delivery before it leaves that to a person."""

_FEDRAG = (sys.executable, "-c", "from fedrag.cli.main import main; main()", "client")
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1"}


class SelfEvaluation:
    """Runs `fedrag client adopt --by-policy` and then `fedrag client evaluate`, each in a process of its own.

    The first judges deliveries that wait by the site's validation questions; the second measures what is in use on its
    test questions, once, where site.toml says `evaluate`. Between them `fedrag client personalise` trains on what is in
    use, once, where site.toml says so. They start after the reply to the delivery was sent, and end
    when another message arrives. The policy bounds them as it bounds what a coordinator asks: quiet hours and used up
    minutes end them, and with `measure = false` none starts. A failure costs one line on the terminal and a log file;
    the site serves on, and models that could not be judged wait for a person.

    Args:
        folder: The site's folder.
        config: Its site.toml.
        idle_s: Seconds that the site must have been idle.
        clock: Tells the time to the policy.
    """

    def __init__(self, folder: Path, config: SiteConfig, idle_s: float = IDLE_S, clock: Clock = SYSTEM_CLOCK) -> None:
        self._folder = folder
        self._config = config
        self._idle_s = idle_s
        self._trial = self._child("adoption", "adopt", "--by-policy", str(folder))
        self._home = self._child("home", "personalise", str(folder))
        self._evaluation = self._child("evaluation", "evaluate", str(folder))
        self._clock = clock
        self._ledger = WorkLedger(folder / LEDGER_FILE)
        self._meter = WorkMeter(config.policy, self._ledger, clock)
        self._work: tuple[Child, Delivery] | None = None  # what is being done, and with which delivery
        self._done: list[Delivery] = []
        self._tried_at_home: list[Delivery] = []
        self._tries = 0
        self._idle_since = time.monotonic()
        self._is_off = False

    def tend(self, say: Callable[[str], None]) -> None:
        """Start, follow or end the measuring; called in a loop."""
        if self._is_off:
            return
        try:
            self._tend(say)
        except (FedragError, OSError) as error:
            self._is_off = True
            self._end_children()
            say(f"delivered models are not measured any more: {error}")

    def end(self) -> None:
        """End the measuring."""
        self._end_children()
        if self._work:
            self._work = None
            self._meter.end()

    def _end_children(self) -> None:
        for child in (self._trial, self._home, self._evaluation):
            child.end()

    def _child(self, name: str, *arguments: str) -> Child:
        return Child(name, self._command(*arguments), self._folder / "logs" / f"{name}.log", _ENVIRONMENT)

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [*_FEDRAG, *arguments, "--background"]

    def _tend(self, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        if (self._folder / INBOX).exists():  # a message is being worked on
            self._idle_since = now
            if self._work:
                self.end()
        elif self._work:
            self._follow(*self._work, say)
        elif now > self._idle_since + self._idle_s:
            self._idle_since = now  # look again after the same wait
            if work := self._next():
                self._begin(*work, say)

    def _begin(self, child: Child, delivery: Delivery, say: Callable[[str], None]) -> None:
        """Start measuring a delivery, if the policy allows it now."""
        when, policy = self._clock.now(), self._config.policy
        code = refusal_of_work(policy, "measure", self._ledger.of(when, delivery.run), when)
        if code == "policy-measure" and child is self._trial:
            record_verdict(self._folder, delivery, Verdict("unknown", why="policy.measure = false"), adopts=False)
        if code:
            return
        self._ledger.begin("measure", delivery.run, when)
        say(self._what(child, delivery))
        self._meter.begin()
        self._work = child, delivery
        child.start()

    def _follow(self, child: Child, delivery: Delivery, say: Callable[[str], None]) -> None:
        """End the measuring where the policy says so, or see how it ended by itself."""
        if child.pid:
            try:
                self._meter.check()
            except PolicyEndsWork as end:
                self.end()
                say(f"{self._what(child, delivery)} was ended: {REFUSALS[end.code]}")
            return
        self._work = None
        self._meter.end()
        self._idle_since = time.monotonic()
        self._finish(child, delivery, say)

    def _what(self, child: Child, delivery: Delivery) -> str:
        """Return in words what is being done."""
        if child is self._home:
            return f"training {delivery.run} on at home"
        split = "validation" if child is self._trial else "test"
        return f"measuring {delivery.run} on this site's own {split} questions"

    def _next(self) -> tuple[Child, Delivery] | None:
        """Return the next thing to do, if there is one."""
        found = deliveries(self._folder)
        if waiting := next((delivery for delivery in found if delivery.is_to_be_judged), None):
            self._trial.command = self._command("adopt", "--by-policy", str(self._folder), waiting.run)
            return self._trial, waiting
        due = due_at_home(found) if self._config.personalise else None
        if due and due not in self._tried_at_home:
            return self._home, due
        current = current_delivery(found)
        if not self._config.evaluate or current is None or current in self._done:
            return None
        is_measured = (models_folder(self._folder, current.run) / RESULTS_FILE).is_file()
        return None if is_measured else (self._evaluation, current)

    def _finish(self, child: Child, delivery: Delivery, say: Callable[[str], None]) -> None:
        if child is self._trial:
            self._finish_trial(delivery, say)
            return
        if child is self._home:
            self._finish_home(delivery, say)
            return
        self._done.append(delivery)
        if child.exit_code == 0:
            say(f"{delivery.run} is measured: {models_folder(self._folder, delivery.run) / REPORT_FILE}")
        else:
            say(f"{delivery.run} could not be measured: {child.log}")

    def _finish_home(self, delivery: Delivery, say: Callable[[str], None]) -> None:
        """Tell what was kept; what failed is tried again at the next start."""
        self._tried_at_home.append(delivery)
        known = {one.run: one for one in deliveries(self._folder)}
        if line := home_line(known.get(delivery.run, delivery)):
            say(line)
        else:
            say(f"{delivery.run} could not be trained on at home: {self._home.log}")

    def _finish_trial(self, delivery: Delivery, say: Callable[[str], None]) -> None:
        """Tell the verdict; where there is none after some tries, leave it to a person."""
        self._tries += 1
        known = {one.run: one for one in deliveries(self._folder)}
        if delivery.run in known and known[delivery.run].is_to_be_judged:
            if self._tries < TRIES:
                return
            why = f"it could not be measured, see {self._trial.log}"
            record_verdict(self._folder, delivery, Verdict("unknown", why=why), adopts=False)
            known = {one.run: one for one in deliveries(self._folder)}
        self._tries = 0
        if judged := known.get(delivery.run):
            in_use = "; it is current now" if judged.adopted else ""
            say(f"{verdict_line(self._folder, judged)}{in_use}")
