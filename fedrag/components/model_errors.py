"""Errors of a library that loads a base model, with the model's name in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedrag.errors import FedragError, ModelError
from fedrag.weights.store import FetchedModel, fetch_command


@contextmanager
def naming_model(model: FetchedModel) -> Iterator[None]:
    """Name the model in what goes wrong; libraries tell of missing or damaged files in many ways.

    Raises:
        ModelError: Whatever it was.
    """
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{model.name}: {error}") from None
    except FedragError:
        raise
    except Exception as error:  # libraries fail in many ways over a file that is not as they expect
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ModelError(
            f"{model.name}: cannot be loaded from {model.folder} ({reason}); run: {fetch_command(model)}"
        ) from error
