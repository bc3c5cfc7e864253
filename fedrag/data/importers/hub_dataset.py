"""Import a data set of the Hugging Face hub through `datasets`, by a mapping of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported
from fedrag.data.importers.table import Columns, Row, sites_from_rows
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError
from fedrag.types import Passage


def import_hub(
    dataset_id: str,
    columns: Columns,
    config: str | None = None,
    split: str = "train",
    corpus: Sequence[Passage] = (),
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> Imported:
    """Read one split of a data set into sites; see `sites_from_rows`.

    Args:
        dataset_id: Its id on the hub, or a folder that `datasets` can load.
        columns: Which columns hold what.
        config: Which configuration of the data set; None: its default.
        split: Which of the data set's own splits; its questions are split anew.
        corpus: Passages that the rows refer to by id.
        fractions: Shares of the splits.
        seed: Seed of the splits.

    Raises:
        DataError: It cannot be loaded, for example because the hub cannot be reached.
    """
    table = _load(dataset_id, config, split)
    source = f"{dataset_id}[{split}]"
    name = dataset_id.rstrip("/").rsplit("/", 1)[-1]
    return sites_from_rows(_rows(table, source), columns, name, source, corpus, fractions, seed)


def _load(dataset_id: str, config: str | None, split: str) -> Any:
    try:
        return datasets.load_dataset(dataset_id, config, split=split)
    except Exception as error:  # `datasets` and what it calls raise some twenty kinds, without a common one
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{dataset_id}: the data set cannot be loaded (offline, or a wrong name?): {reason}") from error


def _rows(table: Any, source: str) -> Iterator[Row]:
    for number, row in enumerate(table, start=1):
        yield f"{source} row {number}", row
