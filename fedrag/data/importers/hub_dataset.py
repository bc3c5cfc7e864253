"""Import a data set of the Hugging Face hub as a table, through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets

from fedrag.data.importers.table import Table
from fedrag.data.importers.text_file import Row
from fedrag.errors import DataError


def open_hub_table(dataset_id: str, config: str | None = None, split: str = "train") -> Table:
    """Return one split of a data set as a table.

    Args:
        dataset_id: Its id on the hub, or a folder that `datasets` can load.
        config: Configuration of the data set; None: its default.
        split: One of the data set's own splits; fedrag splits its questions again.

    Raises:
        DataError: It cannot be loaded, for example because the hub is not reached.
    """
    source = f"{dataset_id}[{split}]"
    name = dataset_id.rstrip("/").rsplit("/", 1)[-1]
    return Table(_rows(_load(dataset_id, config, split), source), name, source)


def _load(dataset_id: str, config: str | None, split: str) -> Any:
    try:
        return datasets.load_dataset(dataset_id, config, split=split)
    except Exception as error:  # some twenty kinds without a common base
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{dataset_id}: the data set cannot be loaded (offline, or a wrong name?): {reason}") from error


def _rows(table: Any, source: str) -> Iterator[Row]:
    for number, row in enumerate(table, start=1):
        yield f"{source} row {number}", row
