"""Lets the command read and print every language, whatever the locale."""

from __future__ import annotations

import io
import os
import sys


def use_utf8() -> None:
    r"""Start this process again in Python's UTF-8 mode where the locale cannot name every file.

    Under such a locale (LC_ALL=C, with Python's own remedies switched off) a path in another script is an error, and
    libraries read their own files wrongly. What a terminal cannot show is printed as `\u5317` instead of failing.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        arguments = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
