"""The log of a process that reads what the other side sends: no text of theirs steers a terminal or forges a line."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from fedrag.text import printable

_FORMAT = "%(asctime)s %(name)s %(message)s"
_INDENT = "    "

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PlainFormatter(logging.Formatter):
    """Writes a message on one line; the lines of a trace are indented, so that none passes for a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is Python's
        """Return the line of a record."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802  # the name is Python's
        """Return the lines of a trace."""
        return "\n".join(f"{_INDENT}{printable(line)}" for line in super().formatException(ei).split("\n"))


def log_plainly(level: int = logging.INFO) -> None:
    """Log to this process's output, and let Flower's own log be as plain."""
    output = logging.StreamHandler(sys.stdout)
    logging.basicConfig(level=level, handlers=[output])
    for handler in (output, *logging.getLogger("flwr").handlers):
        handler.setFormatter(PlainFormatter(_FORMAT))
