"""The command `zaibei`: noun, then verb. Sub-commands are imported when they are used, so that the command starts at once."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import click

from ops import VERSION
from ops.cli.style import guarded, target


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives (`module:name`), the heading it stands under, its one line of help."""

    where: str
    heading: str
    help: str


# Read when gRPC is first used: below this it writes a line for each stranger's handshake, past our log and without bound.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

COMMANDS = MappingProxyType(
    {
        "up": Lazy("ops.cli.up:up", "Run", "Start a member; no configuration needed to begin."),
        "demo": Lazy("ops.demo.command:demo", "Run", "The whole story in two minutes: copy, kill, answer, return."),
        "cluster": Lazy("ops.cli.cluster:cluster", "Run", "Several members as one: begin, join, look, replace."),
        "source": Lazy("ops.cli.source:source", "Run", "Publish a registry, and check what somebody publishes."),
        "register": Lazy("ops.cli.register:register", "Run", "Identifiers of a source that is hosted here."),
        "tenant": Lazy("ops.cli.tenant:tenant", "Run", "Tenants: begin, rights, quotas, suspend, import, export."),
        "prefix": Lazy("ops.cli.prefix:prefix", "Run", "Prefixes: who owns one, since when; move one to another source."),
        "status": Lazy("ops.cli.status:status", "Look", "Every source: position, lag, freshness, readiness."),
        "resolve": Lazy("ops.cli.resolve:resolve", "Look", "Look an identifier up, here or at any Handle server."),
        "copy": Lazy("ops.cli.copy:copy", "Look", "Copies on this disk: when read through, and found sound?"),
        "audit": Lazy("ops.cli.audit:audit", "Look", "What was decided, by whom, when and why; verified offline."),
        "metrics": Lazy("ops.cli.metrics:metrics", "Look", "Numbers of a running member."),
        "drill": Lazy("ops.cli.drill:drill", "Decide", "Rehearse what can break; signed evidence of it."),
        "hold": Lazy("ops.cli.hold:hold", "Decide", "What the brake stopped: look, sign, release or discard."),
        "block": Lazy("ops.cli.block:block", "Decide", "What is not answered, by signed order with a deadline."),
        "takeover": Lazy("ops.cli.takeover:takeover", "Decide", "Answer in a source's place, and give it back."),
        "order": Lazy("ops.cli.order:order", "Decide", "Orders of a top-level node: make, show, send."),
        "failback": Lazy("ops.cli.failback:failback", "Decide", "Give registrations back, dropping nothing."),
        "stop": Lazy("ops.cli.up:stop", "Decide", "Stop a running member in order."),
        "config": Lazy("ops.cli.config:config", "Set up", "Check, show and begin a configuration file."),
        "identity": Lazy("ops.cli.identity:identity", "Set up", "Who this member is: what its peers pin."),
        "pki": Lazy("ops.cli.pki:pki", "Set up", "A private CA: sign, renew, revoke; instead of pins."),
        "operator": Lazy("ops.cli.operator:operator", "Set up", "People whose signatures count."),
        "help": Lazy("ops.cli.topics:topics", "Set up", "Exit codes, JSON output, plans: `zaibei help`."),
    }
)


class Root(click.Group):
    """The group of all commands; the one place where a command's end becomes an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, name = lazy.where.partition(":")
        try:
            command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not module.startswith(exc.name):
                raise
            raise click.ClickException(f"`zaibei {cmd_name}` is not part of this installation: install zaibei whole") from None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean `zaibei {near[0]}`?" if near else "`zaibei --help` lists them all."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading in dict.fromkeys(lazy.heading for lazy in COMMANDS.values()):
            with formatter.section(heading):
                formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items() if lazy.heading == heading], col_max=12)

    # One signature for both overloads of the parent.
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        words = list(sys.argv[1:] if args is None else args)
        own = words[: words.index("--")] if "--" in words else words
        run = super().main
        sys.exit(guarded(lambda: run(words, prog_name, complete_var, False, **extra), "--json" in own))


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="`zaibei COMMAND --help` shows examples. `zaibei help exit-codes` lists what scripts can rely on.",
)
@click.version_option(VERSION, prog_name="zaibei")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Keep a live, provable copy of identifier registries, and answer for them when their own nodes cannot.

    \b
    Begin here:
      zaibei demo                   see it work
      zaibei up                     start a member on this machine, no configuration needed
      zaibei config example         a configuration file to edit
    """
    target(ctx)


def main() -> None:
    """Entry point of the command."""
    cli(prog_name="zaibei")


if __name__ == "__main__":
    main()
