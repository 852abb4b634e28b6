"""The text that teaches: every command's --help as kept in golden/help.txt, each with an example."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ops.cli.main import COMMANDS, cli

GOLDEN = Path(__file__).parent / "golden" / "help.txt"
OURS = ("up", "stop", "status", "metrics", "hold", "config", "identity", "operator", "help")  # the others have tests of their own


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(cli)
    for name in OURS:
        command = cli.get_command(context, name)
        assert command is not None
        yield (name,), command
        if isinstance(command, click.Group):
            yield from (((name, verb), inner) for verb, inner in command.commands.items())


def help_of(*words: str) -> str:
    result = CliRunner().invoke(cli, [*words, "--help"], prog_name="zaibei", terminal_width=100)
    assert result.exit_code == 0
    return result.stdout


def test_help_is_as_it_was() -> None:
    """A wanted change: ZAIBEI_GOLDEN=write, and read the difference."""
    text = "\n".join(
        f"$ zaibei {' '.join(words)} --help\n{help_of(*words)}" for words in [(), *(words for words, _ in commands())]
    )
    if os.environ.get("ZAIBEI_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_teaches(words: tuple[str, ...], command: click.Command) -> None:
    text = help_of(*words)
    assert "Example" in text and f"zaibei {words[0]}" in text.split("Example", 1)[1]
    if not isinstance(command, click.Group):
        assert "--json" in text


def test_every_command_is_listed_once_under_a_heading() -> None:
    text = help_of()
    for name, lazy in COMMANDS.items():
        assert text.count(f"  {name} ") >= 1 and lazy.help in text
