"""What a run would do, without doing it: who would take part, what each policy would say, bytes and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrag import __version__
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.state import initial_state
from fedrag.components.traffic import Traffic, traffic
from fedrag.components.trained_weights import component_plan
from fedrag.config.scenario import Config
from fedrag.config.schedule import schedule_text, sites_asked, trained_components
from fedrag.coordinator.foreseen import Asked, refusal_text, refusals_of_all, reservations
from fedrag.coordinator.jobs import checked, hindrances
from fedrag.coordinator.overview import site_states, told_last
from fedrag.coordinator.pace import Pace, pace_of_earlier
from fedrag.coordinator.secure_sites import secure_sum_text
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.dp.accounting import has_accounting
from fedrag.dp.feasibility import NoisePlan, cost_text
from fedrag.federation.greeting import minor_version
from fedrag.reporting.what_ran import duration
from fedrag.text import plural, size_text
from fedrag.types import Component, State

TAKES_PART, NOT_KNOWN, SITS_OUT, REFUSES = "takes part", "not known", "sits out", "refuses"


@dataclass(frozen=True, slots=True)
class ForeseenSite:
    """What a registered site would do.

    Attributes:
        site: Its name.
        state: "online", "offline", or "unknown" where the coordinator does not run.
        answer: "takes part"; "refuses" every round; "sits out": it has nothing to train on, or another version; "not
            known": it was never greeted, or keeps its policy to itself.
        says: What its policy says of this run, or why the answer is what it is.
    """

    site: str
    state: str
    answer: str
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do.

    Attributes:
        scenario: Its name.
        rounds: How many.
        schedule: What they train, in words.
        sites: The registered sites.
        needed: Sites without which the first round does not begin.
        asked: Sites that are asked in a round, of those that may take part.
        traffic: Bytes of a site that takes part in every round.
        wire: Number format of the updates.
        pace: How long a round took in an earlier run that trained as this one; None: there is none.
        hindrances: Why the run could not begin now.
        secure: How many sites may vanish in a round of its secure sum, in words; "" where it has none.
    """

    scenario: str
    rounds: int
    schedule: str
    sites: tuple[ForeseenSite, ...]
    needed: int
    asked: int
    traffic: Traffic
    wire: str
    pace: Pace | None
    hindrances: tuple[str, ...]
    secure: str = ""

    @property
    def able(self) -> int:
        """The sites that may take part: online, as far as that is known, and not known to refuse or to sit out."""
        return len(_able(self.sites))

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole run, if all that may take part do."""
        return self.traffic.total(self.asked, self.able)

    def to_json(self) -> dict[str, Any]:
        """Return what it tells as JSON."""
        moved = {"to_site": list(self.traffic.to_site), "back": list(self.traffic.back), "total": self.total_bytes}
        pace = {"run": self.pace.run, "seconds_a_round": self.pace.seconds_a_round} if self.pace else None
        return {
            "scenario": self.scenario,
            "rounds": self.rounds,
            "schedule": self.schedule,
            "sites": [{"site": s.site, "state": s.state, "answer": s.answer, "says": list(s.says)} for s in self.sites],
            "may_take_part": self.able,
            "needed": self.needed,
            "bytes": moved,
            "seconds": self.pace.seconds_a_round * self.rounds if self.pace else None,
            "pace": pace,
            "hindrances": list(self.hindrances),
            "secure": self.secure,
        }


def dry_run(folder: ServerFolder, config: Config, components: Components = SHIPPED) -> DryRun:
    """Foresee a run; nothing is started, asked or written.

    It raises the errors of `jobs.checked`: what is wrong with the scenario is wrong for a run, too.

    Args:
        folder: The coordinator's folder; the coordinator need not run.
        config: The scenario.
        components: What can be trained, by name.
    """
    config = checked(folder, config)
    federation = config.federation
    state = _state(config, components)
    moved = traffic(config, state, components)
    plans = _noise_plans(config, state)
    told = told_last(folder)
    states = site_states(folder)
    asked_sites = sites_asked(federation, len(states))
    sites = tuple(
        _foreseen(name, state, told.get(name), config, moved, components, asked_sites, plans)
        for name, state in states.items()
    )
    asked = sites_asked(federation, len(_able(sites)))
    return DryRun(
        scenario=config.name,
        rounds=federation.rounds,
        schedule=schedule_text(federation),
        sites=sites,
        needed=federation.min_sites,
        asked=asked,
        traffic=moved,
        wire=federation.wire,
        pace=pace_of_earlier(folder, config),
        hindrances=tuple(hindrances(folder)),
        secure=secure_sum_text(asked, federation.secure_colluding) if federation.secure else "",
    )


def summary_lines(found: DryRun) -> list[str]:
    """Return what a dry run tells beside its table of sites, as lines for a person."""
    moved, able = found.traffic, found.able
    lines = [
        f"{found.scenario}: {plural(found.rounds, 'round')}, {found.schedule}",
        f"sites: {able} of {len(found.sites)} may take part, at least {found.needed} "
        f"{'is' if found.needed == 1 else 'are'} needed"
        + ("" if able >= found.needed else "; the run would wait for more, and stop"),
        f"bytes ({found.wire}): in a round at most {size_text(max(moved.to_site))} to a site and "
        f"{size_text(max(moved.back))} back; at most {size_text(found.total_bytes)} in all",
        _time_line(found),
        *([f"secure sum: {found.secure}"] if found.secure else []),
    ]
    return lines + [f"it could not begin now: {reason}" for reason in found.hindrances]


def _time_line(found: DryRun) -> str:
    if found.pace is None:
        return "time: not known; no earlier run trained as this one would"
    whole = duration(found.pace.seconds_a_round * found.rounds)
    return f"time: about {whole}; {found.pace.run} took {duration(found.pace.seconds_a_round)} a round"


def _able(sites: Sequence[ForeseenSite]) -> list[ForeseenSite]:
    return [site for site in sites if site.state != "offline" and site.answer in (TAKES_PART, NOT_KNOWN)]


def _state(config: Config, components: Components) -> State:
    """Return the tensors of each component that the run trains or takes over, as it begins."""
    state = initial_state(config, trained_components(config.federation), components)
    if config.start_from:
        from fedrag.components.earlier_result import read_earlier_result  # it imports torch, and the console this file

        state |= read_earlier_result(config, components).state
    return state


def _noise_plans(config: Config, state: State) -> dict[Component, NoisePlan]:
    """Return the noised training of each component; none where there is no noise, or nothing here accounts for it."""
    if not config.privacy.is_on or not has_accounting():
        return {}
    return {name: component_plan(config, name, state[name]) for name in trained_components(config.federation)}


def _foreseen(
    name: str,
    state: str,
    told: Mapping[str, Any] | None,
    config: Config,
    moved: Traffic,
    components: Components,
    sites: int,
    plans: Mapping[Component, NoisePlan],
) -> ForeseenSite:
    if told is None:
        return ForeseenSite(name, state, NOT_KNOWN, ("did not answer a greeting yet",))
    asked = Asked(config, moved.largest, told["counts"], sites)
    if missing := _why_it_sits_out(told, config, components):
        return ForeseenSite(name, state, SITS_OUT, (missing,))
    policy = told.get("policy", {})
    if not policy:
        return ForeseenSite(name, state, NOT_KNOWN, ("does not tell its policy",))
    if codes := refusals_of_all(policy, asked, components):
        return ForeseenSite(name, state, REFUSES, tuple(map(refusal_text, codes)))
    tells = policy.get("tell_counts", 1) and not config.federation.secure
    noise = noise_costs(plans, told["counts"]) if tells else ()
    return ForeseenSite(name, state, TAKES_PART, (*reservations(policy, asked), *noise))


def noise_costs(plans: Mapping[Component, NoisePlan], counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what noise costs each component at a site that told these numbers of its questions.

    Args:
        plans: The noised training of each component; none where there is no noise.
        counts: What the site told; subjects, which are fewer, it does not tell.
    """
    for name, plan in plans.items():
        yield f"{name}: {cost_text(plan, counts.get('train_questions', 0))}"


def _why_it_sits_out(told: Mapping[str, Any], config: Config, components: Components) -> str:
    """Return why a site takes no part, whatever its policy says; "" where it can."""
    if minor_version(told["version"]) != minor_version(__version__):
        return f"runs fedrag {told['version']}, this coordinator {__version__}"
    trained = trained_components(config.federation)
    if any(find_component(components, name).can_train(told["counts"], config) for name in trained):
        return ""
    return "has no training questions of the kind that this run learns from"
