"""What protecting single questions with noise would cost at a site, and what is spent already."""

from __future__ import annotations

from pathlib import Path

from fedrag.data.site_folder import load_site
from fedrag.dp.accounting import has_accounting, require_accounting, usual_delta
from fedrag.dp.feasibility import FEW_STEPS, SMALL_ADAPTER, NoisePlan, cost_text
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.dp.units import count_units, unit_word
from fedrag.errors import DataError
from fedrag.site.site_config import SiteConfig

_USUAL_EPSILON = 8.0


def noise_text(folder: Path, config: SiteConfig) -> str:
    """Return what epsilon costs at the site's number of questions, how to make the best of it, and what is spent.

    Args:
        folder: The site's folder.
        config: Its site.toml.

    Raises:
        ConfigError: The policy asks for noise, and the library that accounts for it is missing.
        StorageError: The ledger cannot be read.
    """
    limit = config.policy.max_epsilon
    if limit:
        require_accounting()
    if not has_accounting():
        return "runs that add noise are refused: pip install 'fedrag[dp]' lets this site take part in them"
    try:
        train = load_site(Path(config.data)).train
    except DataError:
        return "can be told once the data is in order"  # which is a finding of its own
    units, word = count_units(train), unit_word(train)
    if not units:
        return "no training question, so nothing to protect"
    plan = NoisePlan(limit or _USUAL_EPSILON, FEW_STEPS, SMALL_ADAPTER)
    cost = cost_text(plan, units, f"training {word}")
    spent = PrivacyLedger(folder / LEDGER_FILE).epsilon(usual_delta(units))
    of = f" of {limit:g} (max_epsilon)" if limit else ", without a limit (max_epsilon)"
    return (
        f"{cost}, in {SMALL_ADAPTER:,} weights over {FEW_STEPS} steps in all; a run makes the best of it with "
        f'privacy.sample_rate = 1, few privacy.steps, federation.rule = "ffa" and a small lora.rank; spent so far: '
        f"epsilon {spent:.2f}{of}"
    )
