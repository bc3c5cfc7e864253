"""Passages that come from a store: all of them, under ids that stay, in the file that trains and is hashed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.site_folder import hash_site, load_site
from fedrag.data.writing import write_site
from fedrag.errors import ConfigError, DataError
from fedrag.site.site_config import SITE_FILE, SiteConfig, site_toml
from fedrag.site.source_passages import sync_passages
from fedrag.types import Passage, Question, Site

qdrant_client = pytest.importorskip("qdrant_client")

PASSAGES = (
    Passage("1", "The pool opens at seven.", "Pool", "handbook.pdf, page 3"),
    Passage("2", "The porter keeps the keys."),
    Passage("3", "A late book costs ten cents a day."),
)
QUESTIONS = (
    Question("q1", "When does the pool open?", ("at seven",), ("1",)),
    Question("q2", "Who keeps the keys?", ("the porter",), ("2",)),
)


def fill(folder: Path, passages: list[Passage], ids: Callable[[str], object] = int, **fields: str) -> None:
    """Make the collection anew in Qdrant's local mode, a dimension of one, in this order."""
    client = qdrant_client.QdrantClient(path=str(folder))
    models = qdrant_client.models
    if client.collection_exists("guidelines"):
        client.delete_collection("guidelines")
    client.create_collection("guidelines", models.VectorParams(size=1, distance=models.Distance.DOT))
    named = {"text": "text", "title": "title", "source": "source", **fields}
    payloads = [{named[key]: getattr(one, key) for key in named} for one in passages]
    client.upsert(
        "guidelines",
        [
            models.PointStruct(id=ids(one.id), vector=[1.0], payload=payload)
            for one, payload in zip(passages, payloads, strict=True)
        ],
    )
    client.close()


def site(folder: Path, source: str = "", questions: tuple[Question, ...] = QUESTIONS) -> SiteConfig:
    """Make a site's folder whose data has questions alone."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = [{"id": q.id, "question": q.question, "answers": q.answers, "passage_ids": q.passage_ids} for q in questions]
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = f'[source]\nkind = "qdrant"\nlocation = "{folder / "qdrant"}"\ncollection = "guidelines"\n{source}'
    text = f'name = "clinic"\nserver = "localhost:8443"\ndata = "data"\n{where}'
    (folder / SITE_FILE).write_text(text)
    return SiteConfig.from_file(folder / SITE_FILE)


def test_the_points_of_a_collection_are_the_passages(tmp_path: Path):
    config = site(tmp_path)
    fill(tmp_path / "qdrant", list(PASSAGES))
    synced = sync_passages(config)
    assert synced is not None
    assert synced.text == "3 passages in the store: 3 new, 0 changed, 0 gone"
    assert load_site(tmp_path / "data").passages == PASSAGES


def test_more_points_than_one_answer_holds_are_all_read(tmp_path: Path):
    config = site(tmp_path, questions=QUESTIONS[:1])
    fill(tmp_path / "qdrant", [Passage(str(number), f"Text {number}.") for number in range(1, 601)])
    sync_passages(config)
    assert len(load_site(tmp_path / "data").passages) == 600


def test_the_hash_is_that_of_what_the_store_holds_whatever_its_order(tmp_path: Path):
    config = site(tmp_path)
    fill(tmp_path / "qdrant", list(PASSAGES))
    sync_passages(config)
    before, written = hash_site(tmp_path / "data"), (tmp_path / "data" / "passages.jsonl").stat().st_mtime_ns
    fill(tmp_path / "qdrant", list(reversed(PASSAGES)))
    assert sync_passages(config).text == "3 passages in the store: 0 new, 0 changed, 0 gone"
    assert (tmp_path / "data" / "passages.jsonl").stat().st_mtime_ns == written
    fill(tmp_path / "qdrant", [*PASSAGES[:2], replace(PASSAGES[2], text="A late book costs a euro.")])
    assert sync_passages(config).changed == 1
    assert hash_site(tmp_path / "data") != before


def test_labels_follow_an_answer_into_another_passage(tmp_path: Path):
    config = site(tmp_path)
    fill(tmp_path / "qdrant", list(PASSAGES))
    sync_passages(config)
    fill(tmp_path / "qdrant", [*PASSAGES[1:], Passage("7", "In summer too the pool opens at seven.")])
    synced = sync_passages(config)
    assert (synced.added, synced.gone) == (1, 1)
    [lost] = synced.relabelled
    assert (lost.id, lost.labels) == ("q1", ("7",))
    assert [question.passage_ids for question in load_site(tmp_path / "data").train] == [("7",), ("2",)]


def test_ids_that_are_uuids_and_fields_of_other_names(tmp_path: Path):
    def ids(identity: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, identity))

    labelled = tuple(replace(q, passage_ids=tuple(map(ids, q.passage_ids))) for q in QUESTIONS)
    config = site(tmp_path, 'text = "page_content"\ntitle = ""\n', labelled)
    fill(tmp_path / "qdrant", list(PASSAGES), ids, text="page_content")
    sync_passages(config)
    found = load_site(tmp_path / "data").passages
    assert {(one.id, one.text, one.title) for one in found} == {(ids(one.id), one.text, None) for one in PASSAGES}


def test_what_cannot_be_read_is_named_and_nothing_is_written(tmp_path: Path):
    config = site(tmp_path)
    with pytest.raises(DataError, match="qdrant: no such folder; expected one of Qdrant's local mode"):
        sync_passages(config)
    fill(tmp_path / "qdrant", list(PASSAGES), text="body")
    with pytest.raises(DataError, match=r'point 1: has no text in "text" \(its fields: body, title, source\)'):
        sync_passages(config)
    other = config.source.model_copy(update={"collection": "letters"})
    with pytest.raises(DataError, match=r"no such collection \(there: guidelines\)"):
        sync_passages(config.model_copy(update={"source": other}))
    away = config.source.model_copy(update={"location": "http://localhost:9"})
    with pytest.raises(DataError, match=r"http://localhost:9, collection .* cannot be read"):
        sync_passages(config.model_copy(update={"source": away}))
    assert not (tmp_path / "data" / "passages.jsonl").exists()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('kind = "qdrant"', "location is empty"),
        ('kind = "qdrant"\nlocation = "store"', "collection is empty"),
        ('kind = "chroma"', "must be '', 'qdrant' or 'llama-index'"),
    ],
)
def test_a_source_that_says_too_little_is_refused(tmp_path: Path, lines: str, told: str):
    (tmp_path / SITE_FILE).write_text(f'name = "a"\nserver = "localhost:1"\ndata = "data"\n[source]\n{lines}\n')
    with pytest.raises(ConfigError, match=told):
        SiteConfig.from_file(tmp_path / SITE_FILE)


def test_a_site_without_a_store_keeps_its_own_passages(tmp_path: Path):
    write_site(tmp_path / "data", Site("data", PASSAGES, QUESTIONS))
    (tmp_path / SITE_FILE).write_text(site_toml("clinic", "localhost:8443"))
    assert sync_passages(SiteConfig.from_file(tmp_path / SITE_FILE)) is None
    told = CliRunner().invoke(app, ["client", "sync", str(tmp_path)]).output
    assert "names no store under [source]" in " ".join(told.split())


def test_the_command_says_which_questions_lost_their_passage(tmp_path: Path):
    site(tmp_path)
    fill(tmp_path / "qdrant", list(PASSAGES))
    CliRunner().invoke(app, ["client", "sync", str(tmp_path)])
    fill(tmp_path / "qdrant", list(PASSAGES[1:]))
    result = CliRunner().invoke(app, ["client", "sync", str(tmp_path)])
    assert (result.exit_code, "q1: its answer stands in no passage" in result.output) == (0, True)
