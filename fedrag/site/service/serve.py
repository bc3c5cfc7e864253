"""A site as a service: its node, restarted when it dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedrag.errors import ServiceError
from fedrag.locks import held_alone
from fedrag.service.children import Child
from fedrag.service.environment import QUIET, proxy_in_the_way
from fedrag.service.stopping import Stop, stop_on_signals
from fedrag.site.agreement_key import provide_agreement_key
from fedrag.site.service.node import ACCESS_DENIED, UNTRUSTED_SERVER
from fedrag.site.service.self_evaluation import SelfEvaluation
from fedrag.site.service.sent_lines import SentLines
from fedrag.site.site_config import SiteConfig

TICK_S = 0.3

_ENVIRONMENT = {**QUIET, "HF_HUB_OFFLINE": "1"}


def serve(folder: Path, config: SiteConfig, say: Callable[[str], None]) -> None:
    """Run a site until it is told to end.

    Args:
        folder: The site's folder.
        config: Its site.toml.
        say: Shows the administrator a line.

    Raises:
        ServiceError: Another process serves the folder.
    """
    with held_alone(folder, ServiceError(f"{folder}: a site is running in this folder already")):
        provide_agreement_key(config)  # a folder of an earlier version has none
        stop_on_signals()
        _serve(folder, config, say)


def _serve(folder: Path, config: SiteConfig, say: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "fedrag.site.service.node", str(folder)]
    node = Child(
        "node",
        command,
        folder / "logs" / "node.log",
        {**_ENVIRONMENT, "FLWR_HOME": str(folder / "flower")},
        {
            ACCESS_DENIED: f"was not let in: is its key registered at {config.server}, "
            "and is this machine's clock right?",
            UNTRUSTED_SERVER: f"was not answered by the coordinator: {config.server} shows no certificate that "
            f"{config.ca} vouches for",
        },
    )
    evaluation = SelfEvaluation(folder, config)
    sent = SentLines(folder, say)
    say(f"{config.name} takes part at {config.server}; what it does: {node.log}; what leaves: fedrag client audit")
    if not config.proxy and (proxy := proxy_in_the_way(config.server)):
        say(f"the way to {config.server} leads through {proxy}; {proxy.way_out}")
    try:
        while True:
            node.tend(say)
            sent.tend()
            evaluation.tend(say)
            time.sleep(TICK_S)
    except Stop:
        say("the site ends")
    finally:
        evaluation.end()
        node.end()
