"""Writes numbers with their units and nouns, addresses, and foreign text so that it does no harm."""

from __future__ import annotations


def size_text(count: float) -> str:
    """Return a number of bytes with a suitable unit.

    >>> size_text(950), size_text(69_632), size_text(2_703_360), size_text(1.4e10)
    ('950 B', '69.6 kB', '2.7 MB', '14.0 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def plural(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> plural(1, "site"), plural(1_200, "pass", "passes")
    ('1 site', '1,200 passes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def printable(text: str) -> str:
    r"""Return foreign text as it may stand in a terminal, a log or a page: on one line, with no character that acts.

    Controls, line ends, marks that turn the direction of writing, and what is invisible come out as their escapes.

    >>> printable("0.2.0\x1b]0;owned\x07")
    '0.2.0\\x1b]0;owned\\x07'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def host_and_port(host: str, port: int) -> str:
    """Return an address as a URL has it: one of IPv6 in brackets.

    >>> host_and_port("rag.example.org", 8443), host_and_port("2001:db8::7", 8443)
    ('rag.example.org:8443', '[2001:db8::7]:8443')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def without_brackets(host: str) -> str:
    """Return a host as a system's own functions take it.

    >>> without_brackets("[2001:db8::7]"), without_brackets("rag.example.org")
    ('2001:db8::7', 'rag.example.org')
    """
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
