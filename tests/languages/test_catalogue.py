"""Every sentence of a page is in the catalogue of each language, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

import fedrag
from fedrag.languages.catalogue import LANGUAGES, Sentence, Words, sentences

PACKAGE = Path(fedrag.__file__).parent
ROOMS = ("reporting", "serving")
TEMPLATES = [path for room in ROOMS for path in sorted((PACKAGE / room / "templates").glob("*.html.jinja"))]
SCRIPTS = [path for room in ROOMS for path in sorted((PACKAGE / room / "templates").glob("*.js"))]
SPOKEN = ("alt", "aria-label", "label", "placeholder", "title")  # attributes that a reader sees or hears
OTHERS = [code for code in LANGUAGES if code != "en"]


def forms(sentence: Sentence) -> list[str]:
    return [sentence] if isinstance(sentence, str) else list(sentence.values())


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def written() -> str:
    """Return all that may name a sentence."""
    paths = [path for kind in ("*.py", "*.jinja") for path in PACKAGE.rglob(kind)]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.parametrize("code", OTHERS)
def test_every_language_has_every_sentence_in_the_same_order(code: str):
    assert list(sentences(code)) == list(sentences("en"))


@pytest.mark.parametrize("code", OTHERS)
def test_the_placeholders_of_a_translation_are_those_of_the_english_sentence(code: str):
    dates = {"year", "month", "day", "short_month", "short_day"}
    wrong = []
    for key, english in sentences("en").items():
        wanted = set().union(*map(placeholders, forms(english)))
        allowed = dates if key == "marks.date" else wanted
        for text in forms(sentences(code)[key]):
            if not (placeholders(text) <= allowed and placeholders(text) >= (set() if allowed is dates else wanted)):
                wrong.append(f"{key}: {text}")
    assert wrong == []


def test_only_english_has_a_form_for_one():
    assert {key for code in OTHERS for key, text in sentences(code).items() if not isinstance(text, str)} == set()


@pytest.mark.parametrize("code", OTHERS)
def test_a_sentence_is_translated_unless_it_is_a_name_of_the_field(code: str):
    same = {key for key, text in sentences(code).items() if text == sentences("en")[key]}
    plain = {key for key in same if re.search("[a-z]{3}", re.sub(r"\{\w+\}", "", str(sentences("en")[key])))}
    assert plain <= {"fact.tau_r", "fact.of_scenario"}


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_sentence_is_blank_or_begins_or_ends_by_chance_with_a_space(code: str):
    spaced = {key for key, text in sentences(code).items() for form in forms(text) if form != form.strip(" ")}
    assert {key.partition(".")[0] for key in spaced} <= {"marks", "verdict", "finding", "fact", "report"}
    assert spaced <= {
        *(f"marks.{name}" for name in ("comma", "semicolon", "space")),
        *("verdict.between", "finding.and", "fact.or", "report.colon"),
    }
    assert [key for key, text in sentences(code).items() if "" in forms(text)] == (["marks.space"] * (code == "zh"))


def test_chinese_is_written_with_its_own_punctuation():
    """A half-width mark after a Chinese character is a slip."""
    slips = [text for text in map(str, sentences("zh").values()) if re.search("[\u4e00-\u9fff][,;:!?.(]", text)]
    assert slips == []


def test_every_sentence_is_used_and_every_one_that_is_used_exists():
    source = written()
    named = set(re.findall(r'"([a-z_]+(?:\.[a-z_0-9]+)+)"', source))
    begun = tuple(set(re.findall(r'f"([a-z_]+\.(?:[a-z_]+\.)?)\{', source)))
    joined = tuple(set(re.findall(r'"([a-z_]+\.)" ~', source)))
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    by_scripts = set(re.findall(r"words\.(\w+)", scripts))
    begun_by_scripts = tuple(re.findall(r"words\[`(\w+_)\$", scripts))
    for key in sentences("en"):
        table, _, name = key.rpartition(".")
        if table.endswith(".script"):
            assert name in by_scripts or name.startswith(begun_by_scripts), f"{key} is used by no script"
        else:
            put_together = key.startswith(begun + joined) and re.search(f"[\"']{name}[\"']", source)
            assert key in named or put_together, f"{key} is used nowhere"
    called = set(re.findall(r'words(?:\.unfilled)?\(\s*"([a-z_]+\.[a-z_.0-9]+)"[,)]', source))
    assert called - set(sentences("en")) == set()
    known = {key.rpartition(".")[2] for key in sentences("en") if ".script." in key}
    assert by_scripts - known == {"space", "date"}


class Spoken(HTMLParser):
    """The words of a template that a reader sees or hears."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self._tags: list[str] = []
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text(encoding="utf-8"), flags=re.S)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tags.append(tag)
        self.found += [str(value) for name, value in attrs if name in SPOKEN]

    def handle_data(self, data):
        if self._tags and self._tags[-1] not in ("style", "script", "code"):
            self.found.append(data)

    def handle_endtag(self, tag):
        self._tags.append("")

    def words(self) -> Iterator[str]:
        return (word for text in self.found for word in re.findall(r"[^\W\d_]+", text))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_holds_no_words_of_its_own(path: Path):
    assert set(Spoken(path).words()) <= {"fedrag"}


def test_a_word_in_a_template_would_be_found(tmp_path: Path):
    (tmp_path / "a.html").write_text('<p title="{{ x }} Deutsch">{% if a %}{{ words("a.b") }} left{% endif %}</p>')
    assert list(Spoken(tmp_path / "a.html").words()) == ["Deutsch", "left"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_holds_no_sentence_of_its_own(path: Path):
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    texts = re.findall(r'"([^"\n]*)"|`([^`]*)`', code)
    told = [text for pair in texts for text in pair if re.search(r"[A-Za-z]{2} [A-Za-z]{2}|[A-Z][a-z]+[.]?$", text)]
    assert set(told) <= {"Enter", "Content-Type", ".search input"}


def test_numbers_and_lists_are_those_of_the_language():
    vi, zh = Words("vi"), Words("zh")
    assert vi("fact.of_sites", n=1234, sites="a") == "1.234: a"
    assert zh("fact.of_sites", n=1234, sites="a") == "1,234 个：a"
    assert (vi.joined(["a", "b", "c"]), zh.joined(["a", "b", "c"])) == ("a, b và c", "a、b和c")
    assert (vi.size(2_703_360), zh.size(2_703_360)) == ("2,7 MB", "2.7 MB")
    assert (vi.component("reranker"), vi.component("generator")) == ("reranker", "bộ sinh")
