"""What runs left at a site is removed; what the site needs, and the record of what left it, is not."""

from __future__ import annotations

import numpy as np
import pytest
from clinic import make_clinic

from fedrag.errors import ConfigError
from fedrag.rag.answer_scores import ScoreCache
from fedrag.site.admin.purge import find_leftovers, remove
from fedrag.site.delivery import current_delivery, deliveries, save_delivery

KEPT = {
    *("site.toml", "site.key", "site.pub", "ca.crt", "coordinator.pub", "egress.jsonl", "requests.jsonl"),
    *("agreement.key", "peers.json", "secure/0123-train-round.json"),
}


@pytest.fixture
def clinic(tmp_path):
    """A site after two runs, of which the second crashed while its models came."""
    folder = make_clinic(tmp_path)
    for run in ("a-1", "b-1"):
        save_delivery(folder, run, {"generator": {"weight": np.ones(3, np.float32)}}, "scenario")
    (folder / "models" / "a-1" / "report.html").write_text("quotes the site's data")
    (folder / "models" / ".b-1.partial").mkdir()
    (folder / "models" / ".b-1.partial" / "generator.safetensors").write_bytes(b"half")
    caches = ("answer-scores/0123/4567.npy", "diagnosis-answers/0123.jsonl", "indexes/89ab/vectors.npy")
    for name in (*caches, "logs/node.log", "logs/node.1.log", "egress.jsonl", "requests.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("x" * 1500)
    for name in ("inbox", "outbox", "outbox.partial"):
        (folder / name).write_bytes(b"a request, or a reply with an update")
    (folder / "secure").mkdir()
    for end in ("json", "open", "reply", "revealed"):  # without the list, it could mask a second time
        (folder / "secure" / f"0123-train-round.{end}").write_bytes(b"of a secure sum")
    (folder / "peers.json").write_text('{"sites": {}}')
    return folder


def files(folder):
    """The files that hold something, by their path in the site's folder; not the site's data."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.stat().st_size}
    return {name for name in found if not name.startswith("data/")}


def test_all_that_runs_left_is_removed_and_nothing_else(clinic):
    before = {name: (clinic / name).read_bytes() for name in KEPT}
    remove(clinic, find_leftovers(clinic))
    assert files(clinic) == KEPT
    assert {name: (clinic / name).read_bytes() for name in KEPT} == before
    assert (clinic / "data" / "train.jsonl").is_file()
    assert not find_leftovers(clinic).lines


def test_of_the_models_one_run_s_alone_can_be_removed(clinic):
    remove(clinic, find_leftovers(clinic, "b-1"))
    scenario_of_a = {f"models/a-1/{name}" for name in ("generator.safetensors", "scenario.toml", "report.html")}
    messages = {
        "inbox",
        "outbox",
        "outbox.partial",
        *(f"secure/0123-train-round.{e}" for e in ("open", "reply", "revealed")),
    }
    assert files(clinic) == KEPT | scenario_of_a | messages | {"models/current.json"}
    found = current_delivery(deliveries(clinic))
    assert found is not None
    assert found.run == "a-1"
    assert sorted(path.name for path in (clinic / "models").iterdir()) == [".lock", "a-1", "current.json"]


def test_what_is_left_is_told_by_kind_with_its_size(clinic):
    lines = find_leftovers(clinic).lines
    assert [line.rpartition(":")[0] for line in lines] == [
        "models of a-1",
        "models of b-1",
        "answer scores, which a run computes anew",
        "answers of a diagnosis, which are generated anew",
        "indexes of the passages, which are made anew",
        "logs",
        "the last request and the reply to it",
        "masks of a secure sum, without which this site reveals nothing of an open round",
    ]
    assert lines[2:6] == [
        "answer scores, which a run computes anew: 1.5 kB",
        "answers of a diagnosis, which are generated anew: 1.5 kB",
        "indexes of the passages, which are made anew: 1.5 kB",
        "logs: 3.0 kB",
    ]


def test_a_run_that_is_not_there_is_named_with_those_that_are(clinic):
    for run in ("c-1", "../data", ".b-1.partial"):
        with pytest.raises(ConfigError, match=r"no models of a run '.*'; there are: a-1, b-1$"):
            find_leftovers(clinic, run)
    assert "inbox" in files(clinic)


def test_a_site_that_is_at_work_goes_on_with_its_cache_and_its_log(clinic):
    cache = ScoreCache(clinic / "answer-scores", "key")
    with (clinic / "logs" / "node.log").open("a") as log:
        remove(clinic, find_leftovers(clinic))
        log.write("goes on\n")
    assert (clinic / "logs" / "node.log").read_text() == "goes on\n"
    cache.write([], np.zeros(0, np.float32))
    assert cache.read([]) is not None


def test_there_is_nothing_to_remove_at_a_new_site(tmp_path):
    assert find_leftovers(make_clinic(tmp_path)).lines == []
