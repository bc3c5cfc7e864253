"""The shell completes commands, once it was told to: a real bash with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def test_bash_completes_verbs_and_options_after_install_completion(environment: dict[str, str], tmp_path: Path):
    # Of two commands the first leaves bash running, so that it is the shell that is found.
    command = ["bash", "-c", "fedrag --install-completion; exit $?"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    typed = """
source ~/.bashrc
complete_line() {
    COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    $(complete -p fedrag | sed 's/.*-F \\([^ ]*\\).*/\\1/') fedrag
    echo "${COMPREPLY[@]}"
}
complete_line "fedrag cli"
complete_line "fedrag server re"
complete_line "fedrag client init --da"
"""
    done = subprocess.run(["bash", "-c", typed], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["client", "remove-site resume restore", "--data"], done.stderr
