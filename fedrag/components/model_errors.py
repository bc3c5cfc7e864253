"""Errors of a library that loads a base model, with the model's name in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedrag.errors import ModelError
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
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{model.name}: cannot be loaded from {model.folder} ({reason}); run: {fetch_command(model)}"
        ) from error
