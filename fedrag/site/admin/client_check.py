"""Checks what a site needs to take part: each finding is fine, or says what to do."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fedrag import __version__
from fedrag.components.finding import Finding, found
from fedrag.data.check import check_sites
from fedrag.data.origins import origins_text
from fedrag.errors import ConfigError, DataError, FedragError, ModelError, ServiceError, StorageError
from fedrag.files import read_text_file
from fedrag.memory import free_memory
from fedrag.security.certificates import days_left
from fedrag.security.installed import RELEASE_FILE, installed_release
from fedrag.security.keys import fingerprint, load_private_key
from fedrag.security.permissions import require_private
from fedrag.site.admin.noise_check import noise_text
from fedrag.site.admin.reach import Health, ask_health
from fedrag.site.agreement_key import agreement_file, own_public
from fedrag.site.peers import read_peers
from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device
from fedrag.site.site_keys import next_key, trusted_key
from fedrag.site.source_passages import sync_passages
from fedrag.text import plural, size_text
from fedrag.types import SPLITS
from fedrag.weights.store import FetchedModel, count_parameters, fetched_models, find_model, verify_model

FLOWER = "1.42"
"""The minor version of Flower whose Fleet API the node uses."""

CLOCK_S = 60.0
CLOCK_LIMIT_S = 300
"""With a clock that is further off, Flower rejects a site's signatures."""

FEW_DAYS = 14

_GIGABYTE = 1e9
_FULL_BYTES = 20  # per retriever weight in float32: itself, its base, its gradient, AdamW's two moments
_DELIVERIES = 3  # deliveries that must fit on the disk


def check_site(folder: Path) -> Iterator[Finding]:
    """Check a site's folder, its machine and the way to its coordinator; errors become findings.

    Args:
        folder: The site's folder.
    """
    yield found("versions", _versions)
    try:
        config = SiteConfig.from_file(folder / SITE_FILE)
    except FedragError as error:
        yield Finding("site.toml", False, str(error))
        return
    yield Finding("site.toml", True, f"{config.name}, of the federation at {config.server}")
    checks: dict[str, Callable[[], str]] = {
        "data": lambda: _data(config),
        "privacy": lambda: noise_text(folder, config),
        "models": lambda: _models(config),
        "device": lambda: _device(config),
        "memory": lambda: _memory(config),
        "disk": lambda: _disk(folder, config),
        "permissions": lambda: _permissions(folder, config),
        "private key": lambda: _private_key(config),
        "secure sums": lambda: _secure_sums(folder, config),
        "ca.crt": lambda: _authority(config),
        "coordinator.pub": lambda: _coordinator_key(config),
        "release": lambda: _release(config),
    }
    for name, check in checks.items():
        yield found(name, check)
    yield from _server(config)


def _versions() -> str:
    flower = version("flwr")
    if not flower.startswith(f"{FLOWER}."):
        raise ConfigError(f"flwr {flower} is installed, but {FLOWER} is needed; run: pip install 'flwr=={FLOWER}.*'")
    return f"python {platform.python_version()}, fedrag {__version__}, flwr {flower}"


def _data(config: SiteConfig) -> str:
    synced = sync_passages(config)
    return f"{synced.text}; {_data_text(config)}" if synced else _data_text(config)


def _data_text(config: SiteConfig) -> str:
    report = check_sites([Path(config.data)])
    if report.errors:
        more = f"; {len(report.errors) - 1} more: fedrag data check {config.data}" if len(report.errors) > 1 else ""
        raise DataError(f"{report.errors[0]}{more}")
    [site] = report.sites
    train = site.n_distinct["train"]
    if not any(site.n_questions.values()):
        raise DataError(
            f"{config.data}: {plural(site.n_passages, 'passage')} and no question yet, so this site can be asked, but "
            "trains nothing; questions with their answers stand in train.jsonl, and fedrag data update --qa takes them "
            "from a table"
        )
    if train < config.policy.min_examples:
        raise DataError(
            f"{config.data}: {plural(train, 'training question')}, so this site trains nothing: its policy asks for "
            f"{config.policy.min_examples} (min_examples); they stand in train.jsonl"
        )
    counts = ", ".join(f"{site.n_questions[split]:,} {split}" for split in SPLITS)
    origins = f" ({told})" if (told := origins_text(site.n_by_origin)) else ""
    warned = f"; {plural(len(report.warnings), 'warning')}: fedrag data check {config.data}" if report.warnings else ""
    return f"{plural(site.n_passages, 'passage')}, questions: {counts}{origins}{warned}"


def _models(config: SiteConfig) -> str:
    faults: list[str] = []
    names: list[str] = []
    for name in config.policy.base_models or [model.name for model in fetched_models()]:
        try:
            _check_model(config, name)
        except ModelError as error:
            faults.append(str(error))
        names.append(name)
    if faults:
        raise ModelError("; ".join(faults))
    if not names:
        raise ModelError("no model is fetched; run: fedrag models fetch")
    return f"{', '.join(names)}: fetched, intact and tried"


def _check_model(config: SiteConfig, name: str) -> None:
    model = find_model(name)
    allowed = config.policy.base_models.get(name, model.tensors_sha256)
    if model.tensors_sha256 != allowed:
        raise ModelError(
            f"{name}: was fetched with other tensors ({model.tensors_sha256[:16]}) than policy.base_models allows "
            f"({allowed[:16]})"
        )
    verify_model(model)
    from fedrag.components.model_check import wrong_by_itself  # models are loaded: seconds

    if wrong := wrong_by_itself(model):
        raise ModelError(f"{name}: " + "; ".join(f"{finding.name}: {finding.text}" for finding in wrong))


def _device(config: SiteConfig) -> str:
    choose_device(config)
    import torch  # takes seconds, which the help text of the verb can do without

    if config.device != "cpu" and torch.cuda.is_available():
        from fedrag.components.crew import require_devices  # imports torch

        require_devices(config.processes)
        together = f", {config.processes} of them train together" if config.processes > 1 else ""
        return f"cuda: {torch.cuda.get_device_name()}{together}"
    if config.device == "cuda":
        raise ConfigError('device = "cuda", but torch finds no GPU; install its driver, or set device = ""')
    from fedrag.weights.compute import cpu_count  # imports torch

    return f"cpu: {plural(cpu_count(), 'core')}"


def _memory(config: SiteConfig) -> str:
    """Compare the free memory with a rough need: to train the largest models, and a gigabyte for all else."""
    choose_device(config)
    from fedrag.weights.compute import best_device, computing_dtype  # imports torch

    device = best_device()
    bytes_a_weight = computing_dtype("auto", device).itemsize
    chosen = _chosen_models(config)
    need = _GIGABYTE + bytes_a_weight * _largest(chosen, "generator") + _FULL_BYTES * _largest(chosen, "retriever")
    free = free_memory(device)
    if free is None:
        return f"roughly {size_text(need)} are needed; this system does not tell how much is free"
    if free < need:
        where = "on the GPU" if device == "cuda" else "in memory"
        raise ConfigError(
            f"{size_text(free)} are free {where}, roughly {size_text(need)} are needed; end other programs, or "
            "choose smaller models"
        )
    return f"{size_text(free)} free, roughly {size_text(need)} needed"


def _disk(folder: Path, config: SiteConfig) -> str:
    free = shutil.disk_usage(folder).free
    need = _GIGABYTE + _DELIVERIES * 4 * _largest(_chosen_models(config), "retriever")
    if free < need:
        raise StorageError(
            f"{folder}: {size_text(free)} are free on its disk, roughly {size_text(need)} are needed; free some, for "
            f"example with: fedrag client purge {folder}"
        )
    return f"{size_text(free)} free, roughly {size_text(need)} needed"


def _chosen_models(config: SiteConfig) -> list[FetchedModel]:
    """Return the fetched models that may run here."""
    allowed = config.policy.base_models
    return [model for model in fetched_models() if not allowed or model.name in allowed]


def _largest(models: Sequence[FetchedModel], role: str) -> int:
    """Return how many weights the largest model of a role has."""
    of_role = [model for model in models if (model.kind == "encoder") == (role == "retriever")]
    return max((count_parameters(model.folder) for model in of_role), default=0)


def _permissions(folder: Path, config: SiteConfig) -> str:
    """Look at all but what the administrator brings, the data and what all sites get, and the key, looked at next."""
    others = (config.data, config.ca, config.coordinator_key, config.private_key)
    return require_private(folder, [Path(name) for name in others])


def _private_key(config: SiteConfig) -> str:
    key = load_private_key(Path(config.private_key))
    waits = "; its next one waits until the coordinator accepts it" if next_key(config).is_file() else ""
    return f"only its owner can read it; fingerprint {fingerprint(key.public_key())}{waits}"


def _secure_sums(folder: Path, config: SiteConfig) -> str:
    """Say whether this site can take part in a secure sum, and with whom."""
    if not agreement_file(config).is_file():
        return "the next start makes an agreement key; then send site.pub to the coordinator again"
    own_public(config)
    peers = read_peers(folder)
    waiting = [peer.name for peer in peers if peer.state != "confirmed"]
    what_to_do = f"; not confirmed: {', '.join(waiting)}; see: fedrag client peers {folder}" if waiting else ""
    policy = config.policy
    asks = f"sums of {policy.secure_min_sites} sites or more, {policy.secure_colluding} on the coordinator's side"
    return f"an agreement key is there; takes part in {asks}; {plural(len(peers), 'other site')} known{what_to_do}"


def _authority(config: SiteConfig) -> str:
    days = days_left(_handed_out(config.ca), datetime.now(UTC))
    if days < FEW_DAYS:
        when = f"ends in {plural(days, 'day')}" if days >= 0 else "has ended"
        raise ConfigError(f"{config.ca}: {when}; the coordinator must make a new one and give it to every site")
    return f"valid for {plural(days, 'day')}"


def _coordinator_key(config: SiteConfig) -> str:
    _handed_out(config.coordinator_key)
    key = trusted_key(config)
    return f"fingerprint {fingerprint(key)}; compare it with the coordinator's on the telephone"


def _release(config: SiteConfig) -> str:
    """Say whether the same files are installed as at the coordinator: a notice, since either may be the older."""
    told = Path(config.coordinator_key).with_name(RELEASE_FILE)
    here = installed_release()
    if not told.is_file():
        return f"fedrag {here}; the coordinator has not said which it has ({RELEASE_FILE})"
    there = read_text_file(told, ConfigError).strip()
    if here == there:
        return f"fedrag {here}, the same files as at the coordinator"
    return f"fedrag {here} is installed here, but {there} at the coordinator: ask which of the two is the released one"


def _handed_out(name: str) -> Path:
    if not Path(name).is_file():
        raise ConfigError(f"{name}: is missing; the coordinator gives it to every site")
    return Path(name)


def _server(config: SiteConfig) -> Iterator[Finding]:
    """Yield whether the coordinator answers and, if so, its certificate and the difference of the clocks."""
    reached: list[Health] = []

    def reach() -> str:
        reached.append(ask_health(config))
        return f"{config.server} answers" + (f" through {config.proxy}" if config.proxy else "")

    yield found("server", reach)
    if reached:
        yield found("certificate", lambda: _certificate(config, reached[0]))
        yield found("clock", lambda: _clock(reached[0]))


def _certificate(config: SiteConfig, health: Health) -> str:
    days = (health.certificate_ends - datetime.now(UTC)).days
    if days < FEW_DAYS:
        raise ServiceError(
            f"that of {config.server} ends in {plural(days, 'day')}; ask the coordinator to renew it: "
            "fedrag server rotate"
        )
    return f"that of {config.server} is valid for {plural(days, 'day')}"


def _clock(health: Health) -> str:
    if health.clock_ahead_s is None:
        return "the coordinator told no time"
    seconds = round(health.clock_ahead_s)
    if abs(seconds) > CLOCK_S:
        where = "ahead of" if seconds > 0 else "behind"
        raise ServiceError(
            f"this machine's is {abs(seconds):,} s {where} the coordinator's, and from {CLOCK_LIMIT_S} s on the site "
            "is not let in; set it, for example with: timedatectl set-ntp true"
        )
    return f"{abs(seconds)} s away from the coordinator's"
