"""Reads the documents of a folder: what can be read, and what is left out with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.documents.document import Document, UnreadableDocument
from fedrag.data.documents.pdf import read_pdf
from fedrag.data.documents.plain_text import read_markdown, read_plain_text
from fedrag.data.documents.webpage import read_webpage
from fedrag.data.documents.word_file import read_word_file
from fedrag.display import Display, Quiet
from fedrag.errors import ConfigError, DataError

_Reader = Callable[[Path, str, str | None], Document]

READERS: dict[str, _Reader] = {
    ".pdf": lambda path, name, encoding: read_pdf(path, name),
    ".docx": lambda path, name, encoding: read_word_file(path, name),
    ".html": lambda path, name, encoding: read_webpage(path, name),
    ".htm": lambda path, name, encoding: read_webpage(path, name),
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_plain_text,
}
"""How a file is read, by its ending in small letters."""


@dataclass(frozen=True, slots=True)
class ReadFolder:
    """What a folder holds.

    Attributes:
        documents: Those that could be read, in order of their paths.
        unread: Why a document was left out, by its path.
        other_kinds: Paths of files that are no documents.
    """

    documents: list[Document]
    unread: dict[str, str]
    other_kinds: list[str]


def read_folder(
    folder: Path, encoding: str | None = None, without: Path | None = None, display: Display = Quiet()
) -> ReadFolder:
    """Read all documents below a folder; one that cannot be read does not keep the others out.

    Args:
        folder: The folder. Hidden files, and those that Office opens beside a document, are passed over.
        encoding: Encoding of plain text; None: what its byte order mark says, else UTF-8.
        without: A file to pass over.
        display: Shows progress.

    Raises:
        DataError: There is no such folder.
        ConfigError: A library is not installed, or there is no such encoding.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is a file; a folder was expected' if folder.exists() else 'no such folder'}")
    found = ReadFolder([], {}, [])
    paths = [path for path in _files(folder) if without is None or not path.samefile(without)]
    readable = [path for path in paths if path.suffix.lower() in READERS]
    found.other_kinds.extend(_name(path, folder) for path in paths if path.suffix.lower() not in READERS)
    for number, path in enumerate(readable, start=1):
        name = _name(path, folder)
        display.progress("documents", number - 1, len(readable))
        try:
            found.documents.append(READERS[path.suffix.lower()](path, name, encoding))
        except UnreadableDocument as error:
            found.unread[name] = str(error)
        except DataError as error:
            found.unread[name] = str(error).removeprefix(f"{path}: ")
        except ConfigError:
            raise
        except OSError as error:
            found.unread[name] = f"it cannot be read: {error.strerror or error}"
        except Exception as error:  # a library may fail in any way on a damaged file, which must not stop the others
            found.unread[name] = f"it cannot be read ({type(error).__name__})"
    display.progress("documents", len(readable), len(readable))
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        if path.is_file() and not any(name.startswith((".", "~$")) for name in names):
            yield path


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
