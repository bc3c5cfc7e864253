"""What the environment of the command, and of every process that a service starts, must be."""

from __future__ import annotations

import sys

from fedrag.errors import ServiceError

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variables of the command and of every process that a service starts.

No library reports to its makers or looks for updates, and tokenizers start no threads, of which they would warn at
each fork.
"""


def require_linux(verb: str) -> None:
    """Refuse a deployment on another system, whose processes do not end with their parent.

    Args:
        verb: The verb group that was asked for, such as "server".

    Raises:
        ServiceError: This is not Linux.
    """
    if sys.platform != "linux":
        raise ServiceError(f"fedrag {verb} needs Linux; simulate, data, models, ask and report run on this system too")
