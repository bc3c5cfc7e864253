"""Who did what at a coordinator: a line before a command is carried out, and one about how it ended.

Both stand in a chained log. A command whose first line cannot be written is not carried out.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import ParamSpec, TypeVar

from fedrag.config.scenario import Config
from fedrag.errors import FedragError, StorageError
from fedrag.security.chained_log import ChainedLog, raw_lines

AUDIT_FILE = "audit.jsonl"

_LOGIN = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Operator:
    """Who types a command.

    Attributes:
        user: The system user whose rights the process has.
        sudo: The one who called sudo, as sudo tells it; "" if nobody did.
        login: The one who logged in, as the kernel keeps it, whatever was called since; "" where it does not.
    """

    user: str
    sudo: str = ""
    login: str = ""

    @property
    def text(self) -> str:
        """Who it was in a few words, the person first."""
        people = [name for name in dict.fromkeys((self.login, self.sudo)) if name and name != self.user]
        return " as ".join([*people, self.user])


def current_operator() -> Operator:
    """Return who runs this process."""
    login = _NO_LOGIN
    with suppress(OSError, ValueError):
        login = int(_LOGIN.read_text(encoding="ascii"))
    return Operator(_name(os.geteuid()), os.environ.get("SUDO_USER", ""), "" if login == _NO_LOGIN else _name(login))


def _name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def operator_log(folder: Path) -> ChainedLog:
    """Return the log of a coordinator's folder; the folder decides who may enter it, and so who may read this."""
    return ChainedLog(folder / AUDIT_FILE, mode=0o640)


@contextmanager
def recording(folder: Path, command: str, told: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Record a command before it is carried out and how it ended; yield a dictionary for its `result`, if it has one.

    Args:
        folder: The coordinator's folder.
        command: The command's name.
        told: What it was called with.

    Raises:
        StorageError: The log cannot be written, so the command must not be carried out.
    """
    log, number = operator_log(folder), secrets.token_hex(4)
    outcome: dict[str, str] = {}
    who = current_operator()
    people = {"user": who.user, "sudo": who.sudo, "login": who.login}
    typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    log.append({"time": _now(), "id": number, **people, "command": command, "told": dict(told), "typed": typed})
    end = {"state": "failed", "why": "the process was told to end"}
    try:
        yield outcome
        end = {"state": "done", "result": outcome.get("result", "")}
    except FedragError as error:
        end = {"state": "refused", "why": str(error)}
        raise
    except Exception as error:
        end = {"state": "failed", "why": f"{type(error).__name__}: {error}"}
        raise
    finally:
        with suppress(StorageError):  # a command without an end is shown as one
            log.append({"time": _now(), "id": number, **end})


def recorded(command: str, *arguments: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record every call of a function whose first argument is a ServerFolder.

    Args:
        command: The name that the log gives to it.
        arguments: The names of the arguments that the log keeps.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            folder: Path = next(iter(given.values())).path
            with recording(folder, command, {name: _text(given[name]) for name in arguments}) as outcome:
                result = function(*args, **kwargs)
                outcome["result"] = _text(result)
            return result

        return call

    return decorate


def _text(value: object) -> str:
    if isinstance(value, Config):
        return f"{value.name}, sha256 {hashlib.sha256(value.to_toml().encode()).hexdigest()}"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """A command in the log.

    Attributes:
        time: When it was given; local time, ISO 8601.
        operator: By whom.
        command: What.
        told: What it was called with.
        typed: The command line of the process.
        end: How it ended.
    """

    time: str
    operator: Operator
    command: str
    told: Mapping[str, str] = field(default_factory=dict)
    typed: str = ""
    end: str = "no end is recorded: the process was killed"


def recorded_commands(folder: Path) -> list[RecordedCommand]:
    """Return the commands in the log of a coordinator's folder, oldest first.

    Raises:
        StorageError: The log cannot be read.
    """
    found: dict[str, RecordedCommand] = {}
    for raw in raw_lines(folder / AUDIT_FILE):
        with suppress(ValueError, KeyError, TypeError):  # cut off by a crash, or written by hand
            line = json.loads(raw)
            if "command" in line:
                who = Operator(line["user"], line["sudo"], line["login"])
                found[line["id"]] = RecordedCommand(line["time"], who, line["command"], line["told"], line["typed"])
            else:
                more = line["result"] if line["state"] == "done" else line["why"]
                end = f"{line['state']}: {more}" if more else line["state"]
                found[line["id"]] = replace(found[line["id"]], end=end)
    return list(found.values())


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
