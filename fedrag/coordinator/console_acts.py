"""What a person can do in the console: the functions of the command line, each after a question.

An act is asked for twice. The first time it answers with a question and changes nothing; the second request repeats,
as `confirm`, what the question expects, and so names what was shown: another run, another scenario or another key
than that is not touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedrag.config.scenario import Config, read_scenario
from fedrag.coordinator.console_page import render_dry_run
from fedrag.coordinator.dry_run import dry_run
from fedrag.coordinator.enrolment import enrol_site, remove_site
from fedrag.coordinator.jobs import begin_run, resume_run, run_names, stop_run
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError, ServiceError
from fedrag.security.keys import fingerprint, read_public_key

Fields = Mapping[str, str]
"""What a person entered, by name."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before an act.

    Attributes:
        sentence: What would happen.
        button: The word that does it; "": it cannot be done now.
        typed: What to type for it, if a click is not enough.
        html: What is shown below, made and escaped here.
    """

    sentence: str
    button: str = ""
    typed: str = ""
    html: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a person can do.

    Attributes:
        expects: Returns what the second request must carry as `confirm`.
        question: Returns what is asked before.
        do: Does it, and returns a sentence.
    """

    expects: Callable[[ServerFolder, Fields], str]
    question: Callable[[ServerFolder, Fields], Question]
    do: Callable[[ServerFolder, Fields], str]


def perform(folder: ServerFolder, act: Act, fields: Fields) -> dict[str, Any]:
    """Do what is confirmed, or ask: return `done`, a sentence, or `question` and the `confirm` that answers it.

    Where a person has to type the answer, `confirm` is not told.

    Raises:
        FedragError: It cannot be done; nothing was changed.
    """
    expected = act.expects(folder, fields)
    if fields.get("confirm") == expected:
        return {"done": act.do(folder, fields)}
    question = act.question(folder, fields)
    asked = {"sentence": question.sentence, "button": question.button, "typed": question.typed, "html": question.html}
    return {"question": asked, "confirm": "" if question.typed else expected}


def scenario_names(folder: ServerFolder) -> list[str]:
    """Return the names of the scenarios in the coordinator's folder."""
    return sorted(path.name for path in folder.scenarios.glob("*.toml") if path.is_file())


def _field(fields: Fields, name: str) -> str:
    if not (value := fields.get(name, "").strip()):
        raise ConfigError(f'"{name}" is missing')
    return value


# A run begins.


def _scenario(folder: ServerFolder, fields: Fields) -> Config:
    """Read the scenario that lies in the folder, or the text that came with the request, and change its settings."""
    name, text = fields.get("scenario", ""), fields.get("text", "")
    if bool(name) == bool(text.strip()):
        raise ConfigError("expected a scenario of the coordinator's folder or the text of one, one of the two")
    if name and name not in (known := scenario_names(folder)):
        raise ConfigError(f"{name}: no such scenario in {folder.scenarios}; there are: {', '.join(known) or 'none'}")
    changes = [line.strip() for line in fields.get("changes", "").splitlines() if line.strip()]
    return Config.from_toml(read_scenario(folder.scenarios / name) if name else text, name or "the scenario", changes)


def _digest(folder: ServerFolder, fields: Fields) -> str:
    return hashlib.sha256(_scenario(folder, fields).to_toml().encode()).hexdigest()


def _ask_start(folder: ServerFolder, fields: Fields) -> Question:
    found = dry_run(folder, _scenario(folder, fields))
    html = render_dry_run(found)
    if found.hindrances:
        return Question(f"{found.scenario} cannot be started now. This is what a run of it would do.", html=html)
    return Question(f"Start a run of {found.scenario}? This is what it would do.", "Start the run", html=html)


def _start(folder: ServerFolder, fields: Fields) -> str:
    return f"{begin_run(folder, _scenario(folder, fields))} starts"


# A run stops, and goes on.


def _known_run(folder: ServerFolder, fields: Fields) -> str:
    if (name := _field(fields, "run")) not in (known := run_names(folder)):
        raise ConfigError(f"{name}: there is no such run; there are: {', '.join(known) or 'none'}")
    return name


def _current_run(folder: ServerFolder, fields: Fields) -> str:
    if (name := _known_run(folder, fields)) != folder.current().get("run"):
        raise ServiceError(f"{name} is not in progress")
    return name


def _ask_stop(folder: ServerFolder, fields: Fields) -> Question:
    name = _current_run(folder, fields)
    return Question(f"Stop {name}? The round in progress is lost; the run can be resumed after its last one.", "Stop")


def _stop(folder: ServerFolder, fields: Fields) -> str:
    return f"{stop_run(folder)} stops"


def _ask_resume(folder: ServerFolder, fields: Fields) -> Question:
    return Question(f"Resume {_known_run(folder, fields)} after its last checkpoint?", "Resume")


def _resume(folder: ServerFolder, fields: Fields) -> str:
    resume_run(folder, name := _known_run(folder, fields))
    return f"{name} resumes"


# Sites come and go.


def _fingerprint(folder: ServerFolder, fields: Fields) -> str:
    return fingerprint(read_public_key(_field(fields, "key"), "the key"))


def _ask_add(folder: ServerFolder, fields: Fields) -> Question:
    name, mark = _field(fields, "name"), _fingerprint(folder, fields)
    return Question(
        f"Register {name} with the key {mark}? Compare the fingerprint with the one that the site reads out on the "
        "telephone.",
        "Register",
    )


def _add(folder: ServerFolder, fields: Fields) -> str:
    site = enrol_site(folder, _field(fields, "name"), _field(fields, "key"))
    return f"{site.name} is registered with the key {fingerprint(site.public_key)}"


def _known_site(folder: ServerFolder, fields: Fields) -> str:
    if (name := _field(fields, "site")) not in (known := [site.name for site in folder.register.sites()]):
        raise ConfigError(f"{name}: no site has this name; registered: {', '.join(known) or 'none'}")
    return name


def _ask_remove(folder: ServerFolder, fields: Fields) -> Question:
    name = _known_site(folder, fields)
    return Question(
        f"Remove {name}? It is disconnected at once, and its key can never be registered again.", "Remove", typed=name
    )


def _remove(folder: ServerFolder, fields: Fields) -> str:
    site = remove_site(folder, _known_site(folder, fields))
    return f"{site.name} is removed; its key can never be registered again"


ACTS = {
    "start": Act(_digest, _ask_start, _start),
    "stop": Act(_current_run, _ask_stop, _stop),
    "resume": Act(_known_run, _ask_resume, _resume),
    "add-site": Act(_fingerprint, _ask_add, _add),
    "remove-site": Act(_known_site, _ask_remove, _remove),
}
"""All acts, by the last part of their paths."""
