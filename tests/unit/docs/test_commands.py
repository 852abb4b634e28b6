"""Every `zaibei …` command in the documents exists, with every option it is shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ops.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "ops" / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(zaibei [^`]+)`")


def commands_of(text: str) -> list[str]:
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    shown = [re.sub(r"^.*?(?<![\w/.])zaibei ", "zaibei ", line) for line in lines if re.search(r"(?<![\w/.])zaibei ", line)]
    return [command.partition(" #")[0].strip() for command in [*shown, *INLINE.findall(FENCED.sub("", text))]]


def faults_of(command: str) -> str:
    """What of a command line does not exist; "" when all of it does."""
    words = shlex.split(re.sub(r"[><|&;].*", "", command))[1:]
    at: click.Command = cli
    context = click.Context(cli)
    while words and isinstance(at, click.Group):
        found = at.get_command(context, words[0])
        if found is None:
            return "" if words[0].startswith("-") else f"{command}: no verb {words[0]!r}"
        at, context, words = found, click.Context(found, parent=context), words[1:]
    known = {name for parameter in at.params for name in parameter.opts} | {"--help"}
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return ", ".join(f"{command}: no option {option}" for option in options if option not in known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    assert [fault for command in commands_of(page.read_text(encoding="utf-8")) if (fault := faults_of(command))] == []


def test_the_documents_show_commands() -> None:
    assert len([command for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))]) > 30


@pytest.mark.parametrize(
    "command", ["zaibei statsu", "zaibei hold release X", "zaibei status --chekc", "zaibei source reseed plans X"]
)
def test_a_wrong_command_is_found(command: str) -> None:
    assert faults_of(command)


def test_links_lead_somewhere() -> None:
    faults = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", text):
            if target and "://" not in target and not (page.parent / target).exists():
                faults.append(f"{page.relative_to(ROOT)}: {target}")
        anchors = {
            re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        faults += [f"{page.name}: #{anchor}" for anchor in re.findall(r"\]\(#([^)]+)\)", text) if anchor not in anchors]
    assert faults == []
