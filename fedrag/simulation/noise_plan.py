"""What noise would cost in a scenario, for the dry run: at its smallest and largest site, and how to make it less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedrag.components.trained_weights import component_plan, trained_sizes
from fedrag.config.averaging import averaging_of
from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training, trained_components
from fedrag.dp.accounting import require_accounting, usual_delta
from fedrag.dp.feasibility import NoisePlan, best_plan, cost_text, ratio_text
from fedrag.dp.noise_costs import plan_of_weights, planned_steps
from fedrag.dp.site_noise import WARNING, site_noise_plan, site_noise_steps
from fedrag.dp.units import count_units, unit_word
from fedrag.federation.lora_factors import trained_part
from fedrag.text import plural
from fedrag.types import Component, Site, State


def noise_lines(config: Config, sites: Sequence[Site], state: State) -> list[str]:
    """Return the lines on noise; none where there is none.

    Args:
        config: The scenario.
        sites: Those that train.
        state: The tensors that it begins with.

    Raises:
        ConfigError: The library that accounts for noise is not installed.
    """
    settings = config.privacy
    if not settings.is_on or not sites:
        return []
    require_accounting()
    units = {site.name: count_units(site.train) for site in sites}
    word = unit_word(question for site in sites for question in site.train)
    drawn = "all" if settings.sample_rate == 1 else f"a share of {settings.sample_rate:g}"
    lines = [
        f"privacy: epsilon {settings.epsilon:g} for each {word} and its site, {plural(planned_steps(config), 'step')} "
        f"in all, each on {drawn} of a site's {word}s; passages and the number of {word}s are not protected"
    ]
    for name in trained_components(config.federation):
        lines += _component_lines(config, name, state, units, word)
    return lines


def site_noise_lines(config: Config, clients: int, state: State) -> list[str]:
    """Return the lines on noise that covers whole clients; none where there is none."""
    settings = config.simulation.site_noise
    if not settings.is_on:
        return []
    lines = [
        f"site noise: epsilon {settings.epsilon:g} for each whole client at delta {usual_delta(clients):.2g}, "
        f"{plural(site_noise_steps(config), 'step')} in all; {WARNING}"
    ]
    for name in trained_components(config.federation):
        weights = max(trained_sizes(config.federation, name, state[name]))
        ratio = site_noise_plan(config, weights, clients).ratio(clients)
        lines.append(f"  {name}, {weights:,} weights: of {clients:,} clients, noise {ratio_text(ratio)}")
    return lines


def _component_lines(config: Config, name: Component, state: State, units: Mapping[str, int], word: str) -> list[str]:
    """Return what noise costs a component, and what would cost less."""
    plan = component_plan(config, name, state[name])
    fewest, most = min(units.values()), max(units.values())
    lines = [f"  {name}, {plan.weights:,} weights: {cost_text(plan, fewest, word)}"]
    if most > fewest:
        lines.append(f"  {name}: at {most:,} {word}s, noise {ratio_text(plan.ratio(most))}")
    if len(units) > 1:
        mean = sum(plan.ratio(n) ** 2 for n in units.values()) ** 0.5 / len(units)
        lines.append(f"  {name}: in the mean of {len(units)} sites, noise {ratio_text(mean)}")
    return [*lines, *_advice(config, name, plan, state, fewest)]


def _advice(config: Config, name: Component, plan: NoisePlan, state: State, units: int) -> list[str]:
    """Return the settings with which the same epsilon costs less; none where there are none."""
    b_alone = trained_part(state[name], "A")
    if len(b_alone) == len(state[name]):
        return [f'  {name}: less noise with an adapter: {name}.weights = "lora"']
    keeps_a = averaging_of(config.federation, name).rule == "ffa"
    rank = getattr(config, name).lora.rank
    trainings = sum(rounds_training(config.federation, one) for one in trained_components(config.federation))
    weights = sum(tensor.size for tensor in b_alone.values())
    best, smaller = best_plan(plan_of_weights(config, weights), rank, trainings, units)
    changed = {
        f'federation.{name}.rule = "ffa" (noise on A and on B would multiply)': not keeps_a,
        "privacy.sample_rate = 1": config.privacy.sample_rate < 1,
        f"privacy.steps = {max(1, best.steps // trainings)}": best.steps < plan.steps,
        f"{name}.lora.rank = {smaller}": smaller < rank,
    }
    advised = [setting for setting, is_other in changed.items() if is_other]
    if not advised or best.ratio(units) >= plan.ratio(units):
        return []
    return [f"  {name}: noise {ratio_text(best.ratio(units))} there with {', '.join(advised)}"]
