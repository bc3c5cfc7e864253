"""Downloads a model from the hub, after a quick check that the hub answers and has it."""

from __future__ import annotations

import shutil
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from huggingface_hub import HfApi, ModelInfo, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fedrag.errors import ModelError
from fedrag.weights.model_files import MODEL_FILES, OTHER_COPIES

CONNECT_TIMEOUT_S = 4.0
DEADLINE_S = 8.0


class HubUnreachableError(ModelError):
    """The model hub did not answer; another source may have the model."""


def download_from_hub(name: str, folder: Path) -> tuple[str, str]:
    """Download a model into a folder and return its revision and licence.

    Raises:
        HubUnreachableError: The hub is not reached, or the download broke off.
        ModelError: The hub has no such model, or has it without safetensors.
    """
    model = _ask_for(name)
    files = [sibling.rfilename for sibling in model.siblings or ()]
    if not any(file.endswith(".safetensors") for file in files):
        raise ModelError(f"{name} is on the model hub, but without *.safetensors weights: nothing else is loaded")
    try:
        snapshot_download(
            name,
            revision=model.sha,
            local_dir=folder,
            allow_patterns=list(MODEL_FILES),
            ignore_patterns=list(OTHER_COPIES),
        )
    except Exception as error:  # versions of the hub's client raise requests', httpx's or their own errors
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise HubUnreachableError(f"the download of {name} broke off: {_first_line(error)}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    licence = model.card_data.get("license") if model.card_data else None
    return model.sha or "main", str(licence or "unknown")


def _ask_for(name: str) -> ModelInfo:
    """Ask the hub for a model's description, and wait for it until the deadline.

    A timeout of the connection is not enough: name resolution has none, and where packets are dropped, the timeout
    restarts for each of the hub's addresses.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubUnreachableError("the model hub is not asked, since HF_HUB_OFFLINE is set")
    answers: SimpleQueue[ModelInfo | Exception] = SimpleQueue()
    Thread(target=_ask, args=(name, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=DEADLINE_S)
    except Empty:
        answer = TimeoutError(f"no answer within {DEADLINE_S:.0f} s")
    if isinstance(answer, GatedRepoError):
        raise ModelError(f"{name} is gated: accept its terms on its page at the model hub, then run: hf auth login")
    if isinstance(answer, RepositoryNotFoundError):
        raise ModelError(f"the model hub ({constants.ENDPOINT}) has no model named {name}")
    if isinstance(answer, Exception):
        raise HubUnreachableError(f"the model hub ({constants.ENDPOINT}) cannot be reached ({_first_line(answer)})")
    return answer


def _ask(name: str, answers: SimpleQueue[ModelInfo | Exception]) -> None:
    try:
        answers.put(HfApi().model_info(name, timeout=CONNECT_TIMEOUT_S))
    except Exception as error:  # the waiting thread raises it
        answers.put(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
