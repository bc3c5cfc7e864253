"""Takes the passages of a store, as site.toml names it, into the site's passages.jsonl.

What trains, is measured and is hashed is the file: what a store changes meanwhile counts from the next start on, or
once `fedrag client sync` has been run. The file is written only where something changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fedrag.data.document_update import LabelFollower, Relabelled
from fedrag.data.passage_stores import Store, read_store
from fedrag.data.site_folder import PASSAGES_FILE, load_site
from fedrag.data.writing import rewrite_passages, rewrite_site
from fedrag.errors import ConfigError
from fedrag.files import read_text_file
from fedrag.site.site_config import SiteConfig, SourceConfig
from fedrag.text import plural
from fedrag.types import SPLITS


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of a site's passages.

    Attributes:
        n_passages: Passages of the store.
        added: How many are new.
        changed: How many have another text, title or source.
        gone: How many are no longer there.
        relabelled: Questions whose passage went, or lost their answer.
    """

    n_passages: int
    added: int = 0
    changed: int = 0
    gone: int = 0
    relabelled: tuple[Relabelled, ...] = ()

    @property
    def text(self) -> str:
        """What happened, in a sentence.

        >>> Synced(12, added=1).text
        '12 passages in the store: 1 new, 0 changed, 0 gone'
        """
        counts = f"{self.added:,} new, {self.changed:,} changed, {self.gone:,} gone"
        lost = f"; {plural(len(self.relabelled), 'question')} lost a label" if self.relabelled else ""
        return f"{plural(self.n_passages, 'passage')} in the store: {counts}{lost}"


def sync_passages(config: SiteConfig) -> Synced | None:
    """Write what the store of a site holds now; None: the site has none, its passages.jsonl is its own.

    Labels of questions follow: of one whose passage went, to where its answer stands now.

    Raises:
        ConfigError: A library is not installed, or the key cannot be read.
        DataError: The store cannot be read, or the site's questions are malformed.
        StorageError: The disk is full or not writable.
    """
    if not config.source.kind:
        return None
    found, folder = read_store(_store(config.source)), Path(config.data)
    if not (folder / PASSAGES_FILE).exists():
        rewrite_passages(folder, found)
        return Synced(len(found), added=len(found))
    before = load_site(folder)
    old, new = ({passage.id: passage for passage in passages} for passages in (before.passages, found))
    gone = [passage for passage in before.passages if passage.id not in new]
    changed = sum(passage != old[passage.id] for passage in found if passage.id in old)
    added = len(new.keys() - old.keys())
    if not (gone or changed or added):
        return Synced(len(found))
    follower = LabelFollower(before.passages, found)
    followed = {split: [follower.follow(question) for question in before.split(split)] for split in SPLITS}
    lost = tuple(one.lost for split in SPLITS for one in followed[split] if one.lost)
    train, validation, test = (
        tuple(one.question for one in followed[split] if not (one.lost and one.lost.is_dropped)) for split in SPLITS
    )
    site = replace(before, passages=found, train=train, validation=validation, test=test)
    rewrite_site(folder, site, gone)
    return Synced(len(found), added, changed, len(gone), lost)


def _store(source: SourceConfig) -> Store:
    assert source.kind
    key = read_text_file(Path(source.key_file), ConfigError, "no such file").strip() if source.key_file else ""
    return Store(source.kind, source.location, source.collection, source.text, source.title, source.source, key)
