"""Documents for tests, made by the libraries that offices' programs are like: PDF, Word, Excel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docx
import matplotlib
import openpyxl
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Table

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TEXT, BOLD, CHINESE = "DejaVuSans", "DejaVuSans-Bold", "STSong-Light"
PAGE_BREAK = "<page break>"

Parts = Sequence[str | list[list[str]]]
"""What a document holds, in order: "# heading", "## heading", "- item", a paragraph, a page break, or a table."""


def write_pdf(
    path: Path, parts: Parts, head: str = "", foot: str = "", title: str = "", password: str = "", font: str = TEXT
) -> Path:
    """Write a PDF with a running head and foot, in which `{page}` is the number of the page."""
    for name in (TEXT, BOLD):
        pdfmetrics.registerFont(TTFont(name, FONTS / f"{name}.ttf"))
    pdfmetrics.registerFont(UnicodeCIDFont(CHINESE))
    bold = font if font == CHINESE else BOLD

    def decorate(canvas: Canvas, document: Any) -> None:
        canvas.setFont(font, 8)
        canvas.drawString(60, A4[1] - 30, head.format(page=document.page))
        canvas.drawString(60, 25, foot.format(page=document.page))

    text = ParagraphStyle("text", fontName=font, fontSize=10, leading=13, spaceAfter=8)
    styles = {
        "# ": ParagraphStyle("h1", text, fontName=bold, fontSize=18, leading=22),
        "## ": ParagraphStyle("h2", text, fontName=bold, fontSize=13, leading=17),
    }

    def flowable(part: str | list[list[str]]) -> Flowable:
        if isinstance(part, list):
            return Table(part, style=[("FONTNAME", (0, 0), (-1, -1), font)])
        if part == PAGE_BREAK:
            return PageBreak()
        mark, _, heading = part.partition(" ")
        if f"{mark} " in styles:
            return Paragraph(heading, styles[f"{mark} "])
        return Paragraph(part.replace("- ", "• ", 1) if part.startswith("- ") else part, text)

    encryption = StandardEncryption(password, canPrint=0) if password else None
    document = SimpleDocTemplate(str(path), pagesize=A4, title=title, encrypt=encryption)
    document.build([flowable(part) for part in parts], onFirstPage=decorate, onLaterPages=decorate)
    return path


def write_scan(path: Path, n_pages: int = 2) -> Path:
    """Write a PDF whose pages are pictures, as a scanner makes it."""
    from PIL import Image

    canvas = Canvas(str(path))
    for _ in range(n_pages):
        canvas.drawInlineImage(Image.new("L", (200, 280), 210), 50, 50, 400, 560)
        canvas.showPage()
    canvas.save()
    return path


def write_docx(path: Path, parts: Parts, title: str = "", head: str = "") -> Path:
    """Write a Word file; a paragraph in two asterisks is bold."""
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = head
    if title:
        document.add_heading(title, 0)
    for part in parts:
        if isinstance(part, list):
            table = document.add_table(rows=0, cols=len(part[0]))
            for row in part:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
        elif part.startswith("#"):
            document.add_heading(part.lstrip("# "), len(part) - len(part.lstrip("#")))
        elif part.startswith("- "):
            document.add_paragraph(part[2:], style="List Bullet")
        elif part.startswith("**"):
            document.add_paragraph().add_run(part.strip("*")).bold = True
        else:
            document.add_paragraph(part)
    document.save(str(path))
    return path


def write_xlsx(path: Path, *sheets: Sequence[Sequence[Any]]) -> Path:
    """Write an Excel file of sheets of rows."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def write_documents(folder: Path) -> None:
    """Write what the documents assume that a user has: guidelines, questions on them, and documents of two wards."""
    guidelines = folder / "guidelines"
    guidelines.mkdir()
    rules = ["# Visiting rules", "Visits end at eight in the evening.", "## Children", "They come with an adult."]
    write_pdf(guidelines / "visits.pdf", rules, "St. Mary's", "Page {page}")
    write_docx(
        guidelines / "admission.docx", ["# Papers", "- an identity card", "# Fees", "A single room costs 80 euros."]
    )
    (guidelines / "parking.html").write_text("<nav><a>Home</a></nav><h1>Parking</h1><p>It costs two euros an hour.</p>")
    write_scan(guidelines / "scan.pdf")
    asked = [
        ("When do visits end?", "at eight"),
        ("Until when may visitors stay?", "eight in the evening"),
        ("Whom must children bring?", "an adult"),
        ("What does a single room cost?", "80 euros"),
        ("What does parking cost?", "two euros an hour"),
        ("What papers are needed?", "an identity card"),
        ("Who pays for it all?", "the insurance"),
    ]
    write_xlsx(folder / "questions.xlsx", [("Question", "Answer"), *asked])
    for ward in ("east", "west"):
        (folder / "wards" / ward).mkdir(parents=True)
        (folder / "wards" / ward / "hours.txt").write_text(f"The {ward} ward opens at nine.")
