"""The command as a whole: quick help, errors in one sentence, exit codes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.errors import DataError

HEAVY = ("torch", "transformers", "flwr", "ray", "datasets", "faiss", "sentence_transformers", "matplotlib", "jinja2")


def test_the_command_line_loads_nothing_heavy():
    script = f"import sys, fedrag.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield every verb, and every group of verbs, as a person types it."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


def root() -> click.Group:
    command = get_command(app)
    assert isinstance(command, click.Group)
    return command


def test_no_help_loads_a_model_library():
    """In one process: what one verb's help had loaded, the next would show."""
    script = f"""
import sys
from typer.testing import CliRunner
from fedrag.cli.main import app
for path in {list(commands(root()))}:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0 and "Usage:" in result.stdout, path
    assert not [name for name in {HEAVY} if name in sys.modules], path
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("path", list(commands(root())), ids=lambda path: " ".join(path) or "fedrag")
def test_every_help_says_in_one_sentence_what_a_verb_does_and_gives_an_example(path: tuple[str, ...]):
    command: click.Command = root()
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    sentence, *rest = str(command.help).strip().split("\n\n")
    assert sentence.endswith(".")
    assert ". " not in sentence.replace("1.1 or 2.0", "")
    if not isinstance(command, click.Group):
        assert " ".join(rest).startswith(f"Example: fedrag {' '.join(path)}")


def test_the_help_shows_one_line_a_verb():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    lines = result.stdout[result.stdout.index("Commands") :].splitlines()[1:]
    rows = [line.split()[1] for line in lines if line.startswith("│")]
    assert rows == list(root().commands)


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, "fedrag 0.2.0\n")


def run_command_that(action: Callable[[], None]) -> int:
    """Run the command line with one more command, and return its exit code."""
    command = get_command(app)
    assert isinstance(command, click.Group)
    command.add_command(click.Command("act", callback=action))
    with pytest.raises(SystemExit) as end:
        command.main(["act"])
    return int(end.value.code or 0)


def raise_data_error() -> None:
    raise DataError("train.jsonl:17: not JSON")


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def raise_disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "runs/x/rounds.jsonl")


@pytest.mark.parametrize(
    ("action", "code", "message"),
    [
        (raise_data_error, 2, "Error: train.jsonl:17: not JSON\n"),
        (raise_interrupt, 130, "Stopped.\n"),
        (raise_disk_full, 2, "Error: no space left on the disk: runs/x/rounds.jsonl could not be written\n"),
        (lambda: None, 0, ""),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], action: Callable[[], None], code: int, message: str
):
    assert run_command_that(action) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", message)


def test_unexpected_errors_keep_their_traceback():
    def raise_bug() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_command_that(raise_bug)


def test_a_wrong_option_has_exit_code_2():
    assert CliRunner().invoke(app, ["models", "fetch", "--source", "elsewhere"]).exit_code == 2


def test_a_name_for_several_models_is_an_error():
    result = CliRunner().invoke(app, ["models", "fetch", "a/b", "c/d", "--name", "x"])
    assert result.exit_code == 2
    assert result.output == "Error: --name x names one model, but 2 were given\n"


def test_the_list_tells_an_altered_model(tmp_path: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path))
    runner = CliRunner()
    assert runner.invoke(app, ["models", "list"]).output == "No models yet; run: fedrag models fetch\n"
    fetched = runner.invoke(app, ["models", "fetch", "fedrag/tiny-causal", "fedrag/tiny-encoder"])
    assert fetched.output == "fedrag/tiny-causal: fetched (random)\nfedrag/tiny-encoder: fetched (random)\n"
    (tmp_path / "models" / "fedrag--tiny-encoder" / "model.safetensors").write_bytes(b"damaged")
    rows = json.loads(runner.invoke(app, ["models", "list", "--json"]).output)
    told = [(row["name"], row["kind"], row["parameters"], row["intact"]) for row in rows]
    assert told == [
        ("fedrag/tiny-causal", "causal", 28928, True),
        ("fedrag/tiny-encoder", "encoder", None, False),
    ]
    assert rows[0]["identity"]["tensors"] == rows[0]["sha256"]
    assert set(rows[0]["identity"]) == {"tensors", "tokenizer", "template", "configuration", "prompts"}
    table = runner.invoke(app, ["models", "list"]).output
    assert "fedrag/tiny-causal" in table
    assert "NO" in table
