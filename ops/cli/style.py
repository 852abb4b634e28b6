"""How every command looks: a table for people, one JSON document with --json, exit codes, errors in words, progress bars.

A command is written like this; `console` is the first argument, raising ZaibeiError is how it fails:

    @click.command()
    @target_options
    @styled
    def show(console: Console) -> None:
        console.answer({"name": name}, table(["name"], [[name]]))
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import rich.box
import rich.console
import rich.progress
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ops.admin.edge_client import AdminClient
from ops.cli.exits import Exit, Failure, of_exception
from ops.config import Effective, load_config
from ops.config.values import ADMIN_SOCKET_FILE
from ops.text import json_line, printable
from replica.model.progress import Progress, Report, silent

UNKNOWN = "UNKNOWN"
PLAIN_WIDTH = 160  # columns where output is no terminal, so that tables are not folded in logs and pipes
NEXT = "Next: "

R = TypeVar("R")


class Console:
    """Where a command writes: answers to standard output, everything else to standard error."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._out, self._err = _rich(sys.stdout), _rich(sys.stderr)

    def answer(self, document: Any, *parts: Any) -> None:
        """The command's answer: `document` with --json (one line), otherwise `parts`: tables and texts."""
        if self.as_json:
            click.echo(json_line(document))
            return
        for part in parts:
            part = printable(part, keep="\n") if isinstance(part, str) else part
            self._out.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))

    def say(self, text: str) -> None:
        """A remark beside the answer, for people only."""
        if not self.as_json:
            self._err.print(printable(text, keep="\n"), markup=False, highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        return self._out.is_terminal

    @property
    def rich(self) -> rich.console.Console:
        """For live displays."""
        return self._out

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A Report that draws bars on a terminal's standard error and is silent otherwise."""
        if self.as_json or not self._err.is_terminal:
            yield silent
            return
        with rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
            rich.progress.TimeRemainingColumn(),
            console=self._err,
        ) as bars:
            tasks: dict[str, rich.progress.TaskID] = {}

            def report(progress: Progress) -> None:
                if progress.what not in tasks:
                    tasks[progress.what] = bars.add_task(escape(progress.what), total=progress.total, unit=progress.unit)
                bars.update(tasks[progress.what], completed=progress.done, total=progress.total)

            yield report


def _rich(stream: Any) -> rich.console.Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return rich.console.Console(file=stream, width=width, emoji=False, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A plain table; cells are texts, `None` is UNKNOWN, and a Text keeps its colour. Numbers are right-aligned."""
    body = [[_cell(value) for value in row] for row in rows]
    out = Table(box=rich.box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for at, column in enumerate(columns):
        numeric = bool(body) and all(row[at].plain.replace(",", "").replace(".", "").isdigit() for row in body)
        out.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        out.add_row(*row)
    return out


def pairs(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one a line, without a heading."""
    out = Table(box=None, show_header=False, pad_edge=False)
    out.add_column(style="bold")
    out.add_column(overflow="fold")
    for name, value in rows:
        out.add_row(name, _cell(value))
    return out


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if value is None:
        return Text(UNKNOWN, style="yellow")
    if isinstance(value, bool):
        return Text("yes" if value else "no", style="green" if value else "red")
    return Text(f"{value:,}" if isinstance(value, int) else printable(str(value)))


def styled(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command --json and a Console as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output; a stable contract.")
    @functools.wraps(function)
    def run(*args: Any, as_json: bool, **options: Any) -> R:
        return function(Console(as_json), *args, **options)

    return run


def target_options(function: R) -> R:
    """--config and --data: which member a command speaks with; read them with `target`."""

    def keep(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        if value is not None:
            target(ctx)[str(param.name)] = value

    for option in (
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            expose_value=False,
            callback=keep,
            help="The member's data folder; overrides the configuration.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=keep,
            help="Configuration file. Default: $ZAIBEI_CONFIG, ./zaibei.toml, or embedded defaults.",
        ),
    ):
        function = option(function)  # type: ignore[type-var]
    return function


def target(ctx: click.Context) -> dict[str, Any]:
    """What a command speaks with: `config` and `data` where given, and `admin`, which makes the client when it is first used."""
    if ctx.obj is None:
        ctx.find_root().obj = ctx.obj = {}
    found: dict[str, Any] = ctx.obj
    found.setdefault("admin", lambda: _client(found.get("config"), found.get("data")))
    return found


def admin() -> Any:
    """The channel to the running member. Raises ZaibeiError for a wrong configuration."""
    return target(click.get_current_context())["admin"]()


def effective() -> Effective:
    """The configuration that --config and --data name. Raises ConfigError with all faults."""
    given = target(click.get_current_context())
    return load_config(given.get("config"), data=given.get("data"))


def _client(config: Path | None, data: Path | None) -> AdminClient:
    if data is not None and config is None:
        return AdminClient(data.absolute() / ADMIN_SOCKET_FILE)  # no file is read: it works beside a broken one
    return AdminClient(load_config(config, data=data).config.member.admin_socket)


def guarded(work: Callable[[], object], as_json: bool) -> int:
    """Run a command; every way it can end becomes an exit code, every operating error words without a traceback."""
    try:
        result = work()
        return result if isinstance(result, int) and not isinstance(result, bool) else Exit.DONE
    except click.UsageError as exc:
        return _usage(exc, as_json)
    except click.ClickException as exc:
        return show_failure(Failure("failed", exc.format_message(), Exit.FAILED), as_json)
    except (click.Abort, KeyboardInterrupt):
        return show_failure(Failure("stopped", "stopped by hand", Exit.FAILED), as_json)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader of our output left: nobody to tell
        return Exit.FAILED
    except Exception as exc:  # noqa: BLE001 - translated: operating errors to words, faults of ours to a report with traceback
        failure = of_exception(exc)
        if failure is None:
            traceback.print_exc()
            name = type(exc).__name__
            failure = Failure(
                "internal", f"a fault of zaibei itself ({name}: {exc}), not of your input. Please report it", Exit.FAILED
            )
        return show_failure(failure, as_json)


def show_failure(failure: Failure, as_json: bool) -> int:
    """Tell it, and give its exit code."""
    if as_json:
        click.echo(json_line(failure.document()))
        return failure.exit
    message, found, hint = failure.message.partition(NEXT)
    lines = [f"zaibei: {message.rstrip()}"]
    if found:
        lines.append(f"  next: {hint}")
    lines.append(f"  ({failure.code}, exit {int(failure.exit)}{'; outcome not known' if not failure.definite else ''})")
    click.echo(printable("\n".join(lines), keep="\n"), err=True)
    return failure.exit


def _usage(exc: click.UsageError, as_json: bool) -> int:
    if as_json:
        click.echo(json_line(Failure("usage", exc.format_message(), Exit.USAGE).document()))
    else:
        exc.show()
    return Exit.USAGE
