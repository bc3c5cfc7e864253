"""Asks a console to change things, as its own page does."""

from __future__ import annotations

from typing import Any

import httpx

from fedrag.coordinator.console_token import read_token
from fedrag.coordinator.server_folder import ServerFolder


def page_headers(address: str, folder: ServerFolder) -> dict[str, str]:
    """Return the headers of a request by the console's own page in an unlocked tab."""
    return {
        "Origin": address,
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": "cors",
        "Authorization": f"Bearer {read_token(folder)}",
    }


def ask(address: str, folder: ServerFolder, act: str, **fields: str) -> httpx.Response:
    """Ask for an act once."""
    url, headers = f"{address}/acts/{act}", page_headers(address, folder)
    return httpx.post(url, headers=headers, json=fields, timeout=60)


def asked(address: str, folder: ServerFolder, act: str, **fields: str) -> dict[str, Any]:
    """Ask for an act once, and return the question or what was done."""
    answer = ask(address, folder, act, **fields)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def done(address: str, folder: ServerFolder, act: str, **fields: str) -> str:
    """Ask for an act, confirm it, and return what was done."""
    question = asked(address, folder, act, **fields)
    confirm = question["confirm"] or question["question"]["typed"]
    return str(asked(address, folder, act, **fields, confirm=confirm)["done"])
