"""Import MedQuAD (Ben Abacha and Demner-Fushman 2019): medical questions of several institutes.

Each source's folder is a site. An answer is also the passage; the subject of its document is the passage's title.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites, unique_slugs
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError


def import_medquad(root: Path, fractions: Fractions = DEFAULT_FRACTIONS, seed: int = 0) -> Imported:
    """Read a folder of source folders, or one source's folder of XML files, into sites.

    Pairs without an answer are left out and counted: MedQuAD withdrew some answers.

    Raises:
        DataError: There are no XML files, or one is malformed.
    """
    skipped: Counter[str] = Counter()
    folders = _source_folders(root)
    names = unique_slugs(source_name(folder.name) for folder in folders)
    drafts: dict[str, SiteDraft] = {}
    for folder in folders:
        name = names[source_name(folder.name)]
        draft = drafts.setdefault(name, SiteDraft(name))
        for path in sorted(folder.glob("*.xml")):
            _add_document(draft, path, skipped)
    return build_sites(drafts.values(), skipped, root, fractions, seed)


def source_name(folder: str) -> str:
    """Return a source's name, without the number and the suffix in MedQuAD's folder names.

    >>> source_name("8_NHLBI_QA_XML")
    'NHLBI'
    """
    return re.sub(r"^\d+_|(_QA)?(_XML)?$", "", folder) or folder


def _source_folders(root: Path) -> list[Path]:
    """Return the folders with XML files: those below the root, or the root itself."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if any(root.glob("*.xml")):
        return [Path(root.resolve())]
    folders = sorted(path for path in root.iterdir() if path.is_dir() and any(path.glob("*.xml")))
    if not folders:
        raise DataError(f"{root}: neither it nor a folder in it holds XML files")
    return folders


def _add_document(draft: SiteDraft, path: Path, skipped: Counter[str]) -> None:
    """Add the questions and answers of one file."""
    document = _parse(path)
    title = _clean(document.findtext("Focus"))
    for question_id, question, answer in _pairs(document):
        if question and answer:
            passage_id = draft.add_passage(answer, title=title)
            draft.add_question(question, [answer], [passage_id], question_id)
        else:
            skipped["pairs without question or answer"] += 1


def _pairs(document: ET.Element) -> Iterator[tuple[str, str, str]]:
    """Yield id, question and answer."""
    for pair in document.iter("QAPair"):
        question, answer = pair.find("Question"), pair.find("Answer")
        asked = "" if question is None else _clean("".join(question.itertext()))
        told = "" if answer is None else _clean("".join(answer.itertext()))
        identity = "" if question is None else question.get("qid", "")
        yield identity, re.sub(r"\s*\?[\s?]*$", "?", asked), told


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except ET.ParseError as error:
        raise DataError(f"{path}:{error.position[0]}: not valid XML: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _clean(text: str | None) -> str:
    """Resolve entities that were escaped twice, and collapse white space."""
    return " ".join(html.unescape(text or "").split())
