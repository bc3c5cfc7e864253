"""The site.toml: what a site decides for itself. No server can change it.

It never leaves the site, except for the site's name and, if the site allows it, the rules of its policy as numbers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from fedrag.config.run_settings import Schedule
from fedrag.config.section import Section, parse_section
from fedrag.errors import ConfigError
from fedrag.files import read_text_file
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.types import COMPONENTS, ShippedComponent

SITE_FILE = "site.toml"
PATH_SETTINGS = ("data", "ca", "coordinator_key", "private_key")

_HEADER = f"""\
# {SITE_FILE}: what this site decides. Nothing that the coordinator sends can change it. It learns the name from this
# file and, as numbers, the rules under [policy]; with tell_policy = false the name alone.
# A setting that you leave out has its default.
"""
_SOURCE_HEADER = "# A store from which passages.jsonl is written anew at each start and by fedrag client sync."
_POLICY_HEADER = (
    "# What this site allows. A request that asks for more is refused, and the coordinator learns which rule."
)

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?):([0-9]{1,5})", re.ASCII)
_QUIET = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_SHA256 = re.compile("[0-9a-f]{64}")


def _expected(what: str) -> PydanticCustomError:
    """Return the fault of an unexpected value, for `validation_errors.explain`."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    if not match or not 1 <= int(match[3]) <= 65535:
        raise _expected('HOST:PORT, for example "fedrag.example.org:8443"')
    return text


def _proxy(text: str) -> str:
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # of a port that is no number
        good = False
    if text and not good:
        raise _expected('empty or a URL, for example "http://proxy.example.org:3128"')
    return text


def _path(text: str) -> str:
    if not text:
        raise _expected("a path")
    return text


def _one_or_more(names: tuple[Any, ...]) -> tuple[Any, ...]:
    # Elsewhere an empty list means all; here it would mean none. Nobody should have to guess which.
    if not names:
        raise _expected("a list of at least one name")
    return names


def _table(value: object) -> object:
    if not isinstance(value, dict):
        raise _expected('a table such as { "name of the model" = "its sha256" }')
    return value


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise _expected("64 of the characters 0-9 and a-f; fedrag models list --json shows the sha256")
    return text


def _quiet_hours(text: str) -> str:
    match = _QUIET.fullmatch(text)
    if text and (not match or match.group(1, 2) == match.group(3, 4)):
        raise _expected('empty or two different times of day, for example "08:00-18:00"')
    return text


def quiet_minutes(quiet_hours: str) -> tuple[int, int]:
    """Return the minutes of the day at which quiet hours begin and end; equal where there are none.

    >>> quiet_minutes("22:30-06:00")
    (1350, 360)
    """
    match = _QUIET.fullmatch(quiet_hours)
    if match is None:
        return 0, 0
    start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
    return 60 * start_hour + start_minute, 60 * end_hour + end_minute


AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
Location = Annotated[str, AfterValidator(_path)]


class SiteSection(Section):
    """A part of site.toml. No value is converted to another type: "yes" is not true."""

    model_config = ConfigDict(strict=True)


class Policy(SiteSection):
    """What a site allows."""

    # strict=False on a tuple: TOML has only lists. Their items stay strict.
    components: Annotated[tuple[ShippedComponent, ...], Field(strict=False), AfterValidator(_one_or_more)] = COMPONENTS
    """Components that may be trained or measured here."""
    schedules: Annotated[tuple[Schedule, ...], Field(strict=False), AfterValidator(_one_or_more)] = get_args(Schedule)
    """Schedules that a run may have, as federation.schedule in the coordinator's scenario names them."""
    base_models: Annotated[dict[str, Annotated[str, AfterValidator(_sha256)]], BeforeValidator(_table)] = {}
    """Models that may run here, each with its sha256 (of its tensors) from fedrag models list --json; empty: all."""
    own_modules: Annotated[dict[str, Annotated[str, AfterValidator(_sha256)]], BeforeValidator(_table)] = {}
    """Modules whose losses may run here, with the sha256 that python -m fedrag.security.module_source NAME prints."""
    rounds_a_day: AtLeast0 = 0
    """Trainings begun on a calendar day; of validations, diagnoses, measured deliveries each one more; 0: no limit."""
    minutes_a_day: AtLeast0 = 0
    """Minutes of work on a calendar day, also in vain; then none starts, and what runs is ended; 0: no limit."""
    quiet_hours: Annotated[str, AfterValidator(_quiet_hours)] = ""
    """Hours of local time, such as "22:00-06:00", in which no work starts, and what runs is ended; empty: none."""
    max_rank: AtLeast0 = 0
    """Largest rank of the adapters that train here; runs with larger ones need federation.rule = "svd"; 0: any rank."""
    measure: bool = True
    """Whether models are measured here; false: no validation, no diagnosis, and deliveries wait as if adopt = "ask"."""
    max_message_mb: Annotated[float, Field(gt=0.0)] = 500.0
    """Largest whole message that comes in or leaves, in megabytes (a million bytes)."""
    max_update_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest L2 norm of an update that leaves the site; 0: no limit."""
    min_examples: AtLeast1 = 1
    """Fewest different questions behind each component's update; what is left out or teaches nothing does not count."""
    min_examples_for_metrics: AtLeast1 = 1
    """Fewest questions behind a number that leaves the site, such as a loss; 1: no limit."""
    max_epsilon: Annotated[float, Field(ge=0.0)] = 0.0
    """Most epsilon that all runs together spend of a training question or subject; no run is without noise; 0: all."""
    tell_epsilon: bool = False
    """Whether the coordinator learns what a run with noise has spent here so far."""
    tell_counts: bool = True
    """Whether the coordinator learns numbers of questions; false: 1 or 0, and only in runs with equal weights."""
    tell_diagnosis: bool = False
    """Whether the coordinator learns, where a run asks, how many answers to validation questions are wrong, and why."""
    secure: Literal["allowed", "required"] = "allowed"
    """Whether updates may leave unhidden: "required": only in a secure sum, of which the coordinator sees the sum."""
    secure_min_sites: Annotated[int, Field(ge=MIN_SITES)] = MIN_SITES
    """Fewest sites of a secure sum, and of the sum that is opened; confirm them with fedrag client peers."""
    secure_colluding: Annotated[int, Field(ge=0, le=1000)] = 1
    """Fewest sites on the side of a coordinator that lies, which a secure sum must bear for this site to join it."""
    secure_repeats: AtLeast0 = 1
    """How often a round of a secure sum that was lost may be asked for again; always for the same sites."""
    adopt: Literal["if-better", "always", "ask"] = "if-better"
    """When delivered models are used: if no worse here (too few questions to tell: "ask"), at once, or if you adopt."""
    tell_policy: bool = True
    """Whether the coordinator learns these rules, as numbers, to plan runs by them; it learns no name of a model."""


class SourceConfig(SiteSection):
    """Where this site's passages come from, if not from passages.jsonl."""

    kind: Literal["", "qdrant", "llama-index"] = ""
    """Store that holds all passages: "qdrant", or "llama-index" (an index that it persisted); empty: none."""
    location: str = ""
    """URL of the Qdrant server, or folder of a local one or of the index."""
    collection: str = ""
    """Name of the Qdrant collection."""
    text: Annotated[str, AfterValidator(_path)] = "text"
    """Field of an entry that holds its text, such as "page_content"; a dotted path leads into nested fields."""
    title: str = "title"
    """Field of its title, such as "metadata.title"; an entry may have none."""
    source: str = "source"
    """Field that says where a reader finds the text; an entry may have none."""
    key_file: str = ""
    """File with the key of the Qdrant server; empty: it needs none."""

    @model_validator(mode="after")
    def _check(self) -> SourceConfig:
        if self.kind and not self.location:
            raise ValueError("source.location is empty; expected where the passages are")
        if self.kind == "qdrant" and not self.collection:
            raise ValueError("source.collection is empty; expected the name of the Qdrant collection")
        return self


class SiteConfig(SiteSection):
    """A site's own settings.

    In the file a relative path starts at the file's folder; `from_file` makes all paths absolute.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """Name of this site, as registered at the coordinator: small letters from a to z, digits and hyphens."""
    server: Annotated[str, AfterValidator(_server)]
    """Address of the coordinator: HOST:PORT."""
    data: Location
    """Folder of this site's questions and passages; a relative path starts at the folder of this file."""
    device: Literal["", "cpu", "cuda"] = ""
    """What the models run on, "cpu" or "cuda" (a GPU); empty: the GPU if there is one."""
    processes: AtLeast1 = 1
    """Processes that train together here, each on its share of every batch: one for each GPU."""
    proxy: Annotated[str, AfterValidator(_proxy)] = ""
    """Proxy on the way to the coordinator, such as "http://proxy.example.org:3128"; empty: none."""
    ca: Location = "ca.crt"
    """Certificate of the coordinator's authority; the coordinator gives it to every site."""
    coordinator_key: Location = "coordinator.pub"
    """Public key of the coordinator; this site refuses requests that its private half did not sign."""
    private_key: Location = "site.key"
    """Private key of this site; it never leaves this machine."""
    evaluate: bool = True
    """Whether delivered models are measured here, on this site's own test questions; the results stay here."""
    personalise: AtLeast0 = 0
    """Passes over its training questions for which models in use are trained on here, if they then gain; 0: none."""
    source: SourceConfig = SourceConfig()
    policy: Policy = Policy()

    @classmethod
    def from_file(cls, path: Path | str) -> SiteConfig:
        """Read a site.toml and make its paths absolute.

        Raises:
            ConfigError: The file cannot be read or is not TOML, a key is unknown, or a value is not valid.
        """
        path = Path(path)
        config = parse_section(cls, _read(path), str(path))
        folder = path.parent.absolute()
        source = config.source
        if source.kind and not source.location.startswith(("http://", "https://")):
            source = source.model_copy(update={"location": str(folder / source.location)})
        if source.key_file:
            source = source.model_copy(update={"key_file": str(folder / source.key_file)})
        paths = {key: str(folder / getattr(config, key)) for key in PATH_SETTINGS}
        return config.model_copy(update={**paths, "source": source})


def site_toml(name: str, server: str, data: str = "data") -> str:
    """Return the text of a new site.toml: every setting with its meaning and its default.

    Args:
        name: The site's name.
        server: Address of the coordinator, as HOST:PORT.
        data: Folder of the questions and passages.

    Raises:
        ConfigError: A value is not valid.
    """
    lines = [_HEADER, *_setting_lines(SiteConfig, {"name": name, "server": server, "data": data})]
    lines += [_SOURCE_HEADER, "[source]", "", *_setting_lines(SourceConfig, {})]
    text = "\n".join([*lines, _POLICY_HEADER, "[policy]", "", *_setting_lines(Policy, {})])
    parse_section(SiteConfig, text, SITE_FILE)
    return text


def _setting_lines(section: type[Section], values: dict[str, str]) -> Iterator[str]:
    """Yield a comment, the setting and an empty line for each setting of a section."""
    for key, field in section.model_fields.items():
        if isinstance(field.default, Section):
            continue
        # JSON and TOML spell the values of this section the same.
        value = json.dumps(values.get(key, field.default), ensure_ascii=False)
        yield f"# {field.description}\n{key} = {value}\n"


def _read(path: Path) -> str:
    return read_text_file(path, ConfigError, "no such file; fedrag client init DIR makes a site's folder")


def choose_device(config: SiteConfig, environment: MutableMapping[str, str] = os.environ) -> None:
    """Hide the GPU from torch where the site says "cpu"; call it before torch is used."""
    if config.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
