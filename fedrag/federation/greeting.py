"""What a site says of itself before the first round: its greeting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedrag.config.run_settings import Schedule
from fedrag.errors import MessageError
from fedrag.federation.aggregation import WEIGHT_LIMIT
from fedrag.federation.messages import finite_numbers
from fedrag.federation.refusal_codes import require_content
from fedrag.secure_sum.roster import Member
from fedrag.types import COMPONENTS, IDENTITY_PARTS, ModelIdentity

POLICY_RULES = (
    *(f"components.{component}" for component in COMPONENTS),
    *(f"schedules.{schedule}" for schedule in get_args(Schedule)),
    "base_models",
    "own_modules",
    "rounds_a_day",
    "minutes_a_day",
    "quiet_hours.from",
    "quiet_hours.until",
    "max_message_mb",
    "max_update_norm",
    "min_examples",
    "min_examples_for_metrics",
    "max_epsilon",
    "max_rank",
    "tell_epsilon",
    "measure",
    "secure",
    "secure_min_sites",
    "secure_colluding",
    "secure_repeats",
    "tell_counts",
    "tell_diagnosis",
)
"""What a site may tell of its policy, by the names of its settings.

1 or 0 for each component and schedule, for `measure`, `secure` (whether it is required), `tell_counts` and
`tell_diagnosis`; how many base models are named, 0 where any may run; how many modules of functions are; quiet hours in
minutes of the day, both 0 where none is quiet.
"""


AGREEMENT, PEERS = "agreement", "peers"
"""Records of a greeting and of its request that a secure sum needs."""


NAME_LENGTH = 100


VERSION_LENGTH = 40


_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,4}((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[a-z0-9.]+)?")
"""A version of a Python package, as fedrag writes its own."""


QUESTION_COUNTS = ("train_questions", "answered_questions", "labelled_questions", "validation_questions")
"""What a site tells of its questions."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a site says of itself before the first round.

    Attributes:
        name: The site's name.
        version: Version of fedrag it runs.
        counts: `train_questions`, of these the `answered_questions` and the `labelled_questions`, and
            `validation_questions`.
        models: Identities of its base models, by component: hashes alone.
        policy: What it allows, by `POLICY_RULES`; empty where it does not tell.
    """

    name: str
    version: str
    counts: dict[str, int]
    models: dict[str, ModelIdentity]
    policy: dict[str, float] = field(default_factory=dict)


def greeting_content(greeting: Greeting) -> RecordDict:
    """Write a site's greeting."""
    hashes = {f"{part}.{c}": getattr(model, part) for c, model in greeting.models.items() for part in IDENTITY_PARTS}
    config = ConfigRecord({"name": greeting.name, "version": greeting.version, **hashes})
    content = RecordDict({"greeting": config, "counts": MetricRecord(dict(greeting.counts))})
    if greeting.policy:
        content["policy"] = MetricRecord(dict(greeting.policy))
    return content


def with_agreement(content: RecordDict, member: Member) -> RecordDict:
    """Return a greeting with the agreement key of its site, which the site has signed for a secure sum."""
    told = ConfigRecord({"key": member.key, "signature": member.signature})
    return RecordDict({**{name: content[name] for name in content}, AGREEMENT: told})


def open_agreement(content: RecordDict, name: str) -> Member | None:
    """Return the agreement key that a greeting tells, as that of a site of this name; None where it tells none."""
    record = content.config_records.get(AGREEMENT, ConfigRecord())
    key, signature = record.get("key"), record.get("signature")
    return Member(name, key, signature) if isinstance(key, bytes) and isinstance(signature, bytes) else None


def with_peers(content: RecordDict, keys: Mapping[str, str]) -> RecordDict:
    """Return a greeting's request with the public signing keys of the registered sites, by their names."""
    return RecordDict({**{name: content[name] for name in content}, PEERS: ConfigRecord(dict(keys))})


def open_greeting(message: Message) -> Greeting:
    """Read a site's greeting at the server.

    Raises:
        MessageError: The site refused or its greeting is malformed.
    """
    require_content(message)
    try:
        config = message.content.config_records["greeting"]
        told = {c: {part: _digest(config.get(f"{part}.{c}")) for part in IDENTITY_PARTS} for c in COMPONENTS}
        models: dict[str, ModelIdentity] = {
            c: ModelIdentity(**parts) for c, parts in told.items() if any(parts.values())
        }
        told_counts = message.content.metric_records["counts"]
        counts = {name: int(str(told_counts[name])) for name in QUESTION_COUNTS if name in told_counts}
        rules = message.content.metric_records.get("policy", MetricRecord())
        policy = finite_numbers({name: rules[name] for name in POLICY_RULES if name in rules})
        greeting = Greeting(str(config["name"]), str(config["version"]), counts, models, policy)
    except (KeyError, ValueError) as error:
        raise MessageError(f"its greeting is malformed ({type(error).__name__})") from error
    if not (greeting.name.isprintable() and 0 < len(greeting.name) <= NAME_LENGTH):
        raise MessageError(f"its name is not a printable text of 1 to {NAME_LENGTH} characters")
    if not (len(greeting.version) <= VERSION_LENGTH and _VERSION.fullmatch(greeting.version)):
        raise MessageError("its version is none, such as 0.2.0")
    if not all(0 <= count < WEIGHT_LIMIT for count in counts.values()):
        raise MessageError(f"its numbers of questions are not within 0 and {WEIGHT_LIMIT - 1}")
    return greeting


def minor_version(version: str) -> tuple[str, ...]:
    """Return major and minor version: two that differ in it do not work together.

    >>> minor_version("1.4.2")
    ('1', '4')
    """
    return tuple(version.split(".")[:2])


def _digest(told: object) -> str:
    """Return a hash as it was told; anything else counts as none."""
    return told if isinstance(told, str) and re.fullmatch("[0-9a-f]{1,64}", told) else ""
