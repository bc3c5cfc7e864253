"""The pooled arm's site holds what all sites hold."""

from __future__ import annotations

from fedrag.data.pooling import pool_sites
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.types import Passage, Question, Site


def test_hard_negatives_of_the_pooled_site_are_passages_of_it(tmp_path):
    """Their ids once kept the names of their own sites, and the pooled arm could not be trained."""
    passages = (Passage("p1", "A."), Passage("p2", "B."))
    sites = [Site(name, passages, (Question("q", f"{name}?", (), ("p1",), ("p2",)),)) for name in ("a", "b")]
    write_site(tmp_path / "pooled", pool_sites(sites))
    assert [question.hard_negative_ids for question in load_site(tmp_path / "pooled").train] == [("a/p2",), ("b/p2",)]
