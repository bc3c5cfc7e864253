"""Import a folder of documents: passages with title and source, and the questions of a table, if there is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.documents.boilerplate import without_boilerplate, without_duplicates
from fedrag.data.documents.numbering import number_passages
from fedrag.data.documents.reading_folder import READERS, ReadFolder, read_folder
from fedrag.data.documents.sections import Cut, cut_document
from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, lacking_splits, unique_slugs
from fedrag.data.importers.question_table import AskedQuestion, QuestionTable
from fedrag.data.labelling import AnswerFinder
from fedrag.data.splitting import Fractions, split_questions
from fedrag.display import Display, Quiet
from fedrag.errors import DataError
from fedrag.text import plural


@dataclass(frozen=True, slots=True)
class ImportedDocuments:
    """Sites made of documents.

    Attributes:
        imported: The sites, and what was left out of the table.
        folders: What was read for each site, by its name.
        n_unlabelled: Questions whose answer stands in no passage, or one cannot tell in which.
    """

    imported: Imported
    folders: dict[str, CutFolder]
    n_unlabelled: int


@dataclass(frozen=True, slots=True)
class CutFolder:
    """The passages of a folder.

    Attributes:
        cuts: Passages without ids, of distinct texts.
        read: What was read.
        notes: What of it was dropped or could not be read, in one sentence each.
    """

    cuts: list[Cut]
    read: ReadFolder
    notes: list[str]


def cut_folder(
    folder: Path, encoding: str | None = None, without: Path | None = None, display: Display = Quiet()
) -> CutFolder:
    """Read the documents of a folder and cut them into passages; see `read_folder` for the arguments.

    Raises:
        DataError: There is no such folder.
        ConfigError: A library is not installed.
    """
    read = read_folder(folder, encoding, without, display)
    documents, n_paragraphs = without_boilerplate(read.documents)
    cuts, n_passages = without_duplicates(cut for document in documents for cut in cut_document(document))
    notes = [note for document in documents for note in document.notes]
    if n_paragraphs:
        notes.append(f"{plural(n_paragraphs, 'paragraph')} that most documents hold were dropped.")
    if n_passages:
        notes.append(f"{plural(n_passages, 'passage')} with the text of another were dropped.")
    return CutFolder(cuts, read, notes)


def import_documents(
    folder: Path,
    name: str,
    table: QuestionTable | None = None,
    by_folder: bool = False,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
    without: Path | None = None,
    display: Display = Quiet(),
) -> ImportedDocuments:
    """Make one site of a folder of documents, or one of each of its subfolders.

    Questions of the table are labelled with the passages in which an answer stands as whole words. With several sites
    a question goes to the one that its row names, or else to those that hold its answer.

    Args:
        folder: Where the documents lie.
        name: Name of the site, where it is one.
        table: Questions with their answers; None: the sites have none yet.
        by_folder: Whether each subfolder is a site.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of plain text; None: what its byte order mark says, else UTF-8.
        without: A file to pass over, such as the table.
        display: Shows progress.

    Raises:
        DataError: There is no such folder, no document in it can be read, or a row names an unknown site.
        ConfigError: A library is not installed.
    """
    folders = _subfolders(folder) if by_folder else {name: folder}
    names = unique_slugs(folders)
    read = {names[title]: cut_folder(path, encoding, without, display) for title, path in folders.items()}
    for title, path in folders.items():
        if not read[names[title]].cuts:
            raise DataError(f"{path}: {_nothing(read[names[title]].read)}")
    passages = {site: number_passages(found.cuts).passages for site, found in read.items()}
    drafts = {site: SiteDraft(site, listed) for site, listed in passages.items()}
    skipped: Counter[str] = Counter()
    n_unlabelled = 0
    if table:
        finders = {site: AnswerFinder(listed) for site, listed in passages.items()}
        skipped["rows without question or answer"] = table.n_skipped
        for row in table.questions:
            labels = {site: finder.find(row.question, row.answers) for site, finder in finders.items()}
            chosen = _sites_of(row, labels, names, folder)
            skipped["questions whose answer stands at no site"] += not chosen
            for site in chosen:
                drafts[site].add_question(row.question, row.answers, labels[site])
                n_unlabelled += not labels[site]
    return ImportedDocuments(_build(list(drafts.values()), skipped, table, fractions, seed), read, n_unlabelled)


def _sites_of(row: AskedQuestion, labels: Mapping[str, list[str]], names: Mapping[str, str], folder: Path) -> list[str]:
    """Return the sites to which a question goes."""
    if row.site and row.site not in names:
        raise DataError(f'{folder}: has no subfolder "{row.site}", which a row of the table names as its site')
    if row.site:
        return [names[row.site]]
    return list(labels) if len(labels) == 1 else [site for site, found in labels.items() if found]


def _build(
    drafts: Sequence[SiteDraft],
    skipped: Counter[str],
    table: QuestionTable | None,
    fractions: Fractions,
    seed: int,
) -> Imported:
    """Split the questions, and return the sites, also those without one."""
    asking = {draft.name: [question.question for question in draft.questions] for draft in drafts if draft.n_questions}
    splits = split_questions(asking, fractions, seed)
    warnings = list(lacking_splits(splits.lacking, "too few questions for every split"))
    silent = [draft.name for draft in drafts if not draft.n_questions]
    if silent and table:
        warnings.append(f"no question at {', '.join(silent)}: none of the table has its answer there")
    sites = [draft.build(splits.by_text) for draft in drafts]
    notes = tuple(table.notes) if table else ()
    return Imported(sites, {reason: count for reason, count in skipped.items() if count}, notes, tuple(warnings))


def _subfolders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    if not found:
        raise DataError(f"{folder}: has no subfolders; without --site-by it becomes one site")
    return found


def _nothing(read: ReadFolder) -> str:
    """Say why a folder gives no passage."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in read.unread.items())
    kinds = ", ".join(sorted(READERS))
    return f"no document could be read: {reasons}" if reasons else f"holds no document ({kinds})"
