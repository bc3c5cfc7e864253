"""Pays for one piece of work while it runs, and says when the policy ends it."""

from __future__ import annotations

from types import TracebackType

from fedrag.site.policy import is_quiet, seconds_a_day
from fedrag.site.site_config import Policy
from fedrag.site.work_ledger import Clock, WorkLedger

CHECK_S = 1.0
"""Seconds from one check of running work to the next, at most."""
PAID_S = 10.0
"""Seconds that are paid for at once: what a crash may cost too much."""


class PolicyEndsWork(Exception):
    """The site's policy ends work that runs.

    Args:
        code: The refusal code of the rule.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class WorkMeter:
    """Pays for one piece of work after the other; a block of it ends by any way out.

    Args:
        policy: Says when the work must end.
        ledger: Is charged.
        clock: Tells the time.
    """

    def __init__(self, policy: Policy, ledger: WorkLedger, clock: Clock) -> None:
        self._policy = policy
        self._ledger = ledger
        self._clock = clock

    def __enter__(self) -> WorkMeter:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin(self) -> None:
        """Begin to count time."""
        self._day = self._clock.now().date()
        self._paid_until = self._clock.elapsed()

    def check(self) -> None:
        """Pay for the time up to the next check; called at least every `CHECK_S` while the work runs.

        Raises:
            PolicyEndsWork: The work must end now.
            StorageError: The time cannot be paid for; the work must end as well.
        """
        now = self._clock.now()
        if is_quiet(self._policy, now):
            raise PolicyEndsWork("policy-quiet-hours")
        if now.date() != self._day or self._clock.elapsed() > self._paid_until:
            self.end()
            self._day = now.date()
        missing = self._clock.elapsed() + CHECK_S - self._paid_until
        if missing > 0.0:
            paid = self._ledger.pay(max(missing, PAID_S), now, seconds_a_day(self._policy))
            self._paid_until += paid
            if paid < missing:
                raise PolicyEndsWork("policy-minutes")

    def end(self) -> None:
        """Charge what was worked and not paid for, or give back what was paid for and not worked."""
        elapsed = self._clock.elapsed()
        if elapsed != self._paid_until:
            self._ledger.charge(elapsed - self._paid_until, self._day)
            self._paid_until = elapsed
