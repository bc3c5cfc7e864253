"""Reads all passages of a store that an organisation keeps already: a Qdrant collection, an index of LlamaIndex.

A site needs every passage: it ranks them all, and learns from those that look right and are wrong. So a store must be
able to list what it holds. A retriever alone, which answers queries, cannot stand for a site's passages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fedrag.data.importers.fields import look_up
from fedrag.data.site_folder import parse_passage
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage

StoreKind = Literal["qdrant", "llama-index"]

_AT_A_TIME = 256

Row = tuple[str, str, Mapping[str, Any]]
"""Where an entry stands, for messages; its id; its fields."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where passages are, and which fields of an entry are what.

    Attributes:
        kind: The kind of store.
        location: URL of a Qdrant server or folder of a local one; folder in which LlamaIndex persisted an index.
        collection: Name of the Qdrant collection.
        text: Field of the text; a dotted path leads into nested ones.
        title: Field of the title; where an entry has none, its passage has none.
        source: Field that says where a reader finds the text.
        key: The key of a Qdrant server; empty: none.
    """

    kind: StoreKind
    location: str
    collection: str = ""
    text: str = "text"
    title: str = "title"
    source: str = "source"
    key: str = ""


def read_store(store: Store) -> tuple[Passage, ...]:
    """Return all passages of a store, by their ids, which are those of its entries.

    Raises:
        ConfigError: The library is not installed.
        DataError: The store cannot be read, is empty, or an entry has no text.
    """
    rows = {"qdrant": _qdrant, "llama-index": _llama_index}[store.kind](store)
    found = sorted((_passage(store, *row) for row in rows), key=lambda passage: passage.id)
    if not found:
        raise DataError(f"{_name(store)}: holds no passage; a site needs at least one")
    return tuple(found)


def _passage(store: Store, place: str, identity: str, fields: Mapping[str, Any]) -> Passage:
    def told(field: str) -> str:
        try:
            return " ".join(look_up(fields, field)) if field else ""
        except KeyError:
            return ""

    if not (text := told(store.text)):
        raise DataError(f'{place}: has no text in "{store.text}" (its fields: {", ".join(map(str, fields)) or "none"})')
    row = {"id": identity, "text": text, "title": told(store.title) or None, "source": told(store.source)}
    try:
        return parse_passage(row)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None


def _name(store: Store) -> str:
    return f'{store.location}, collection "{store.collection}"' if store.kind == "qdrant" else store.location


def _qdrant(store: Store) -> Iterator[Row]:
    try:
        from qdrant_client import QdrantClient  # an extra
    except ModuleNotFoundError:
        raise ConfigError("qdrant-client is not installed: pip install 'fedrag[qdrant]'") from None
    is_server = store.location.startswith(("http://", "https://"))
    if not is_server and not Path(store.location).is_dir():
        raise DataError(
            f"{store.location}: no such folder; expected one of Qdrant's local mode, or the URL of a server"
        )
    where: dict[str, Any] = {"url": store.location, "api_key": store.key or None}
    client: Any = _asked(store, lambda: QdrantClient(**(where if is_server else {"path": store.location})))
    try:
        if not _asked(store, lambda: client.collection_exists(store.collection)):
            names = ", ".join(one.name for one in _asked(store, client.get_collections).collections) or "none"
            raise DataError(f"{_name(store)}: no such collection (there: {names})")
        offset: Any = None
        while True:
            options = {"limit": _AT_A_TIME, "offset": offset, "with_payload": True, "with_vectors": False}
            points, offset = _asked(store, partial(client.scroll, store.collection, **options))
            for point in points:
                yield f"{_name(store)}, point {point.id}", str(point.id), point.payload or {}
            if offset is None:
                return
    finally:
        client.close()


def _asked(store: Store, ask: Callable[[], Any]) -> Any:
    """Return what a store answers; its library has errors of many kinds, whose first line says enough."""
    try:
        return ask()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{_name(store)}: cannot be read: {reason}") from None


def _llama_index(store: Store) -> Iterator[Row]:
    try:
        from llama_index.core.storage.docstore import SimpleDocumentStore  # an extra
    except ModuleNotFoundError:
        raise ConfigError("LlamaIndex is not installed: pip install 'fedrag[llama-index]'") from None
    if not (Path(store.location) / "docstore.json").is_file():
        raise DataError(
            f"{store.location}: has no docstore.json; expected a folder in which LlamaIndex persisted an index"
        )
    documents = _asked(store, lambda: SimpleDocumentStore.from_persist_dir(store.location).docs)
    for identity, node in documents.items():
        yield f"{store.location}, node {identity}", str(identity), {**node.metadata, "text": node.get_content()}
