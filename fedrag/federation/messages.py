"""What server and sites say to each other after the greeting: every record and key of it, and nowhere else.

A request carries the scenario and one flat array a component. A reply is arrays in the request's
manifest order, named numbers, or a refusal code: no free text ever leaves a site.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from fedrag.config.values import COMPONENT_PATTERN
from fedrag.errors import MessageError
from fedrag.federation.codec import byte_count, decode, encode, state_wire, unpacked
from fedrag.federation.lora_factors import Factor, trained_part
from fedrag.federation.refusal_codes import require_content
from fedrag.federation.update import Manifest, all_finite, flatten, manifest_of, unflatten
from fedrag.seeding import derive_seed
from fedrag.types import COMPONENTS, Component, State, Tensors
from fedrag.types import Array as FlatArray

PROTOCOL = 1
_FACTORS: dict[str, Factor] = {"": "", "A": "A", "B": "B"}
GREET = "query.greet"
TRAIN = "train.round"
VALIDATE = "evaluate.round"
DELIVER = "query.deliver"
HOME = "train.home"
"""Training at home, which a simulation alone asks for: a deployed site decides by itself, and answers nobody."""


DIAGNOSIS_COUNTS = (
    *("questions", "right", "worded_otherwise", "not_in_corpus", "not_found", "cut", "not_used", "in_context"),
    *("closed_book", "labelled", "labelled_found", "labelled_given", "recovered", "too_long", "ran_on", "near"),
)
"""What a site may tell of why its answers are wrong: the counts of `fedrag.diagnosis.tally`."""
_DIAGNOSIS = "diagnosis."


# Any other name would be text that a site chose.
_METRICS = {"seconds", "delivered", "privacy.epsilon"}
_METRICS_OF_A_COMPONENT = ("loss", "last_loss", "steps", "tokens", "norm", "sum", "count", "scale", "tau_r")


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
    require_content(message)
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
    metrics = finite_numbers({name: value for name, value in told.items() if name in names})
    return Reply(update, counts, metrics, n_bytes=array_bytes(message.content))


def diagnosis_metrics(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the counts of a diagnosis under their names in a reply."""
    return {f"{_DIAGNOSIS}{name}": counts[name] for name in DIAGNOSIS_COUNTS}


def told_diagnosis(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the counts of a diagnosis in a reply's metrics; nothing where they are not whole, or not counts."""
    counts = {name: metrics.get(f"{_DIAGNOSIS}{name}", -1.0) for name in DIAGNOSIS_COUNTS}
    total = counts["questions"]
    return counts if total > 0 and all(0 <= count <= total for count in counts.values()) else {}


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


def finite_numbers(values: Mapping[str, object]) -> dict[str, float]:
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
