"""What server and sites say to each other: every record and key of it, and nowhere else.

A request carries the scenario and one flat array a component. A reply is arrays in the request's
manifest order, named numbers, or a refusal code: no free text ever leaves a site.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import get_args

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from fedrag.config.run_settings import Schedule
from fedrag.config.values import COMPONENT_PATTERN
from fedrag.errors import MessageError
from fedrag.federation.aggregation import WEIGHT_LIMIT
from fedrag.federation.codec import byte_count, decode, encode, state_wire, unpacked
from fedrag.federation.lora_factors import Factor, trained_part
from fedrag.federation.update import Manifest, all_finite, flatten, manifest_of, unflatten
from fedrag.seeding import derive_seed
from fedrag.types import COMPONENTS, IDENTITY_PARTS, Component, ModelIdentity, State, Tensors
from fedrag.types import Array as FlatArray

PROTOCOL = 1
_FACTORS: dict[str, Factor] = {"": "", "A": "A", "B": "B"}
GREET = "query.greet"
TRAIN = "train.round"
VALIDATE = "evaluate.round"
DELIVER = "query.deliver"

REFUSALS = {
    "no-examples": "it has no questions to learn from",
    "diverged": "its training diverged",
    "bad-data": "its data is malformed",
    "bad-model": "its models are missing or altered",
    "bad-request": "it could not read the request",
    "bad-delivery": "the models it was handed are not those of the scenario, or not whole",
    "deliveries-full": "it keeps as many delivered models as it may; its administrator removes old ones",
    "deadline": "the deadline passed while it trained",
    "out-of-memory": "it ran out of memory",
    "no-disk-space": "its disk is full",
    "error": "an error occurred there",
    "bad-signature": "the request's signature is not the coordinator's",
    "other-name": "it has another name than it is registered under",
    "replayed": "it had seen this request before",
    "version": "it runs another version of fedrag",
    "worker": "its worker died",
    "policy-component": "its policy does not allow work on this component",
    "policy-schedule": "its policy does not allow this schedule",
    "policy-model": "its policy does not allow these base models",
    "policy-module": "its policy does not allow this module of functions, or not this source of it",
    "policy-rounds": "its policy does not allow more rounds today",
    "policy-measure": "its policy does not allow to measure models",
    "policy-minutes": "its policy does not allow more work today",
    "policy-quiet-hours": "its policy does not allow work at this time of day",
    "policy-message-size": "its policy does not allow messages this large",
    "policy-few-examples": "its policy does not allow training on so few questions",
    "policy-counts": "its policy does not allow weighting by counts, which it does not tell",
    "policy-update-norm": "its policy does not allow an update this large to leave",
}
"""Codes a site may refuse with, and what they mean."""

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
    "measure",
    "tell_counts",
    "tell_diagnosis",
)
"""What a site may tell of its policy, by the names of its settings.

1 or 0 for each component and schedule, for `measure`, `tell_counts` and `tell_diagnosis`; how many base models are
named, 0 where any may run; how many modules of functions are; quiet hours in minutes of the day, both 0 where none is
quiet.
"""

DIAGNOSIS_COUNTS = (
    *("questions", "right", "worded_otherwise", "not_in_corpus", "not_found", "cut", "not_used", "in_context"),
    *("closed_book", "labelled", "labelled_found", "labelled_given", "recovered", "too_long", "ran_on", "near"),
)
"""What a site may tell of why its answers are wrong: the counts of `fedrag.diagnosis.tally`."""
_DIAGNOSIS = "diagnosis."

NAME_LENGTH = 100
VERSION_LENGTH = 40
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,4}((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[a-z0-9.]+)?")
"""A version of a Python package, as fedrag writes its own."""

QUESTION_COUNTS = ("train_questions", "answered_questions", "labelled_questions", "validation_questions")
"""What a site tells of its questions."""
# Any other name would be text that a site chose.
_METRICS = {"seconds", "delivered"}
_METRICS_OF_A_COMPONENT = ("loss", "last_loss", "steps", "tokens", "norm", "sum", "count", "scale", "tau_r")


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


@dataclass(frozen=True, slots=True)
class Request:
    """What the server asks a site to do in one round.

    Attributes:
        scenario: The resolved scenario as TOML.
        round_number: From 1; 0 in a greeting.
        state: The global tensors that the round needs.
        components: Those to train.
        past_rounds: Rounds that trained a component before, by component.
        frozen: The factor, A or B, that a component's sites do not train; none where it is not named.
        deadline_s: Seconds the site has.
        wire: Number format of the updates, and by `codec.state_wire` of the state.
    """

    scenario: str
    round_number: int = 0
    state: State = field(default_factory=dict)
    components: tuple[Component, ...] = ()
    past_rounds: dict[Component, int] = field(default_factory=dict)
    deadline_s: float = math.inf
    wire: str = "float32"
    frozen: dict[Component, Factor] = field(default_factory=dict)

    def trained(self, component: Component) -> Tensors:
        """Return the tensors of a component that sites train, as they receive them."""
        return trained_part(self.state[component], self.frozen.get(component, ""))

    def manifest(self, component: Component) -> Manifest:
        """Return names and shapes of a component's update."""
        return manifest_of(self.trained(component))


@dataclass(frozen=True, slots=True)
class Reply:
    """What a site sends back.

    Attributes:
        update: The flat difference of each component it trained.
        num_examples: Questions it trained on, by component.
        metrics: Named numbers, such as `generator.loss`.
        refusal: A code of `REFUSALS` instead of all that, or "".
        error_id: Finds the error in the site's own log.
        n_bytes: Bytes of its arrays as they came; the server counts them.
        questions: Distinct questions that each difference comes from; they stay at the site, for its policy.
    """

    update: dict[Component, FlatArray] = field(default_factory=dict)
    num_examples: dict[Component, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    refusal: str = ""
    error_id: str = ""
    n_bytes: int = field(default=0, compare=False)
    questions: dict[Component, int] = field(default_factory=dict, compare=False)


def request_content(request: Request) -> RecordDict:
    """Write a request; one content serves all sites of a round."""
    config = ConfigRecord(
        {
            "protocol": PROTOCOL,
            "scenario": request.scenario,
            "round": request.round_number,
            "components": [str(component) for component in request.components],
            "deadline-s": request.deadline_s,
            "wire": request.wire,
        }
    )
    arrays: dict[str, Array] = {}
    for component, tensors in request.state.items():
        manifest = manifest_of(tensors)
        config[f"manifest.{component}"] = manifest.to_json()
        config[f"past-rounds.{component}"] = request.past_rounds.get(component, 0)
        config[f"frozen.{component}"] = request.frozen.get(component, "")
        arrays[component] = Array(encode(flatten(tensors, manifest), state_wire(request.wire)))
    return RecordDict({"request": config, "state": ArrayRecord(arrays)})


def open_request(message: Message) -> Request:
    """Read a request at the site.

    Raises:
        MessageError: It is malformed or of another protocol.
    """
    try:
        config = message.content.config_records["request"]
        if config["protocol"] != PROTOCOL:
            told = config["protocol"] if isinstance(config["protocol"], int) else "of another kind"
            raise MessageError(f"the server speaks protocol {told}, this site {PROTOCOL}")
        wire = str(config["wire"])
        byte_count(0, wire)  # raises where it is none, also if no state is there to be read
        state: State = {}
        for component, array in message.content.array_records["state"].items():
            _require_name(component)
            manifest = Manifest.from_json(str(config[f"manifest.{component}"]))
            state[component] = unflatten(decode(unpacked(array.data), state_wire(wire), manifest.size), manifest)
        names = config["components"]
        assert isinstance(names, list)
        for name in names:
            _require_name(str(name))
        return Request(
            scenario=str(config["scenario"]),
            round_number=int(str(config["round"])),
            state=state,
            components=tuple(dict.fromkeys(map(str, names))),
            past_rounds={c: int(str(config[f"past-rounds.{c}"])) for c in state},
            deadline_s=float(str(config["deadline-s"])),
            wire=wire,
            frozen={c: _FACTORS[str(config.get(f"frozen.{c}", ""))] for c in state},
        )
    except (KeyError, ValueError, AssertionError) as error:
        raise MessageError(f"a request is malformed: {type(error).__name__}") from error


def greeting_content(greeting: Greeting) -> RecordDict:
    """Write a site's greeting."""
    hashes = {f"{part}.{c}": getattr(model, part) for c, model in greeting.models.items() for part in IDENTITY_PARTS}
    config = ConfigRecord({"name": greeting.name, "version": greeting.version, **hashes})
    content = RecordDict({"greeting": config, "counts": MetricRecord(dict(greeting.counts))})
    if greeting.policy:
        content["policy"] = MetricRecord(dict(greeting.policy))
    return content


def open_greeting(message: Message) -> Greeting:
    """Read a site's greeting at the server.

    Raises:
        MessageError: The site refused or its greeting is malformed.
    """
    _require_content(message)
    try:
        config = message.content.config_records["greeting"]
        told = {c: {part: _digest(config.get(f"{part}.{c}")) for part in IDENTITY_PARTS} for c in COMPONENTS}
        models: dict[str, ModelIdentity] = {
            c: ModelIdentity(**parts) for c, parts in told.items() if any(parts.values())
        }
        told_counts = message.content.metric_records["counts"]
        counts = {name: int(str(told_counts[name])) for name in QUESTION_COUNTS if name in told_counts}
        rules = message.content.metric_records.get("policy", MetricRecord())
        policy = _finite_numbers({name: rules[name] for name in POLICY_RULES if name in rules})
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


def reply_content(reply: Reply, manifests: Mapping[Component, Manifest], wire: str, seed: int = 0) -> RecordDict:
    """Write a reply.

    Args:
        reply: What to say.
        manifests: Manifest of each component of its update.
        wire: Number format of its arrays.
        seed: Decides which way int8 rounds: of the run, the round and the site.
    """
    if reply.refusal:
        refusal = ConfigRecord({"code": reply.refusal, "error-id": reply.error_id})
        return RecordDict({"refusal": refusal})
    seeds = {component: derive_seed(seed, component) for component in reply.update}
    arrays: dict[str, Array] = {c: Array(encode(flat, wire, seeds[c])) for c, flat in reply.update.items()}
    digests = ConfigRecord({component: manifests[component].sha256 for component in reply.update})
    numbers: dict[str, int | float] = {f"num-examples.{c}": n for c, n in reply.num_examples.items()}
    numbers |= {f"metric.{name}": float(value) for name, value in reply.metrics.items()}
    return RecordDict({"update": ArrayRecord(arrays), "manifests": digests, "metrics": MetricRecord(dict(numbers))})


def open_reply(
    message: Message,
    manifests: Mapping[Component, Manifest],
    wire: str,
    components: Collection[Component] = COMPONENTS,
) -> Reply:
    """Read and check a reply at the server: names, sizes, finite numbers.

    Args:
        message: What came back.
        manifests: Manifest of each component whose update was asked for.
        wire: Number format of its arrays.
        components: Those it may tell numbers of.

    Raises:
        MessageError: The site refused or failed, or the reply is not what was asked for; the text
            says which, in words of our own.
    """
    _require_content(message)
    try:
        arrays = message.content.array_records["update"]
        digests = message.content.config_records["manifests"]
        numbers = dict(message.content.metric_records["metrics"])
    except KeyError as error:
        raise MessageError("its reply lacks a record") from error
    unknown = [name for name in arrays if name not in manifests]
    if unknown:
        raise MessageError("its reply holds a component that was not asked for")
    update: dict[Component, FlatArray] = {}
    for component, manifest in manifests.items():
        if component not in arrays:
            continue
        if digests.get(component) != manifest.sha256:
            raise MessageError(f"its {component} has other tensors than the request (manifests differ)")
        update[component] = _open_array(arrays[component], component, wire, manifest.size)
    counts: dict[Component, int] = {}
    for component in update:
        count = numbers.get(f"num-examples.{component}")
        if not isinstance(count, int) or count < 1:
            raise MessageError(f"its number of {component} examples is not a positive whole number")
        counts[component] = count
    told = {name.removeprefix("metric."): value for name, value in numbers.items() if name.startswith("metric.")}
    names = _METRICS | {f"{_DIAGNOSIS}{count}" for count in DIAGNOSIS_COUNTS}
    names |= {f"{component}.{metric}" for component in components for metric in _METRICS_OF_A_COMPONENT}
    metrics = _finite_numbers({name: value for name, value in told.items() if name in names})
    return Reply(update, counts, metrics, n_bytes=array_bytes(message.content))


def diagnosis_metrics(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the counts of a diagnosis under their names in a reply."""
    return {f"{_DIAGNOSIS}{name}": counts[name] for name in DIAGNOSIS_COUNTS}


def told_diagnosis(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the counts of a diagnosis in a reply's metrics; nothing where they are not whole, or not counts."""
    counts = {name: metrics.get(f"{_DIAGNOSIS}{name}", -1.0) for name in DIAGNOSIS_COUNTS}
    total = counts["questions"]
    return counts if total > 0 and all(0 <= count <= total for count in counts.values()) else {}


def minor_version(version: str) -> tuple[str, ...]:
    """Return major and minor version: two that differ in it do not work together.

    >>> minor_version("1.4.2")
    ('1', '4')
    """
    return tuple(version.split(".")[:2])


def array_bytes(content: RecordDict) -> int:
    """Return the bytes of all arrays of a message."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def content_bytes(content: RecordDict) -> int:
    """Return the bytes of a whole message: arrays, texts and numbers, and the names of all of them."""
    return int(recorddict_to_proto(content).ByteSize())


def drop_arrays(message: Message) -> None:
    """Let go of the arrays of a message that was read.

    Flower's records refer to themselves in a circle: without this their bytes stay until Python's collector
    next looks for such, and the server's memory grows with the replies.
    """
    if message.has_content():
        for record in message.content.array_records.values():
            record.clear()


def _require_name(component: Component) -> None:
    """Refuse what is no name: a component's name becomes a file's."""
    if not re.fullmatch(COMPONENT_PATTERN, component):
        raise MessageError("a request names a component that cannot be one")


def _digest(told: object) -> str:
    """Return a hash as it was told; anything else counts as none."""
    return told if isinstance(told, str) and re.fullmatch("[0-9a-f]{1,64}", told) else ""


def _finite_numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return the values that are finite numbers."""
    return {
        name: float(value) for name, value in values.items() if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _open_array(array: Array, component: Component, wire: str, size: int) -> FlatArray:
    try:
        flat = decode(unpacked(array.data), wire, size)
    except MessageError as error:
        raise MessageError(f"its {component}: {error}") from None
    if not all_finite(flat):
        raise MessageError(f"its {component} update holds NaN or infinity")
    return flat


def _require_content(message: Message) -> None:
    """Raise a MessageError where the site failed or refused."""
    if message.has_error():
        # The reason is Flower's or the site's text: its first word at most, and only if it is a plain name.
        reason = (message.error.reason or "").split(":")[0].strip()
        named = reason if re.fullmatch("[A-Za-z0-9_]{1,40}", reason) else "no reason told"
        raise MessageError(f"its client failed ({named})")
    refusal = message.content.config_records.get("refusal")
    if refusal is not None:
        code = str(refusal.get("code", "error"))
        meaning = REFUSALS.get(code, REFUSALS["error"])
        error_id = str(refusal.get("error-id", ""))
        suffix = f"; error {error_id} in the site's log" if re.fullmatch(r"[0-9a-f]{8}", error_id) else ""
        raise MessageError(f"{meaning} ({code if code in REFUSALS else 'error'}{suffix})")
