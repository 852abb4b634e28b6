"""`--watch`: look until Ctrl-C. A look that fails is told and the watch goes on: it is wanted most when things fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from ops.cli.exits import Exit, of_exception
from ops.cli.style import Console
from ops.text import printable
from replica.model.errors import ZaibeiError

Shown = tuple[Any, RenderableType]
"""What a look saw: the document of --json, and what people see."""


def watch(console: Console, look: Callable[[], Shown], every_s: float) -> Exit:
    """Show `look()` every `every_s` seconds: live on a terminal, otherwise one after the other (with --json one document a line).

    Raises:
        ZaibeiError: the first look failed: whoever typed it asked the wrong member. Later ones are shown as what they are.
    """
    try:
        shown = look()
        if console.as_json or not console.is_terminal:
            while True:
                console.answer(*shown)
                time.sleep(every_s)
                shown = _again(console, look)
        with Live(shown[1], console=console.rich, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                live.update(_again(console, look)[1], refresh=True)
    except KeyboardInterrupt:
        return Exit.DONE


def _again(console: Console, look: Callable[[], Shown]) -> Shown:
    try:
        return look()
    except ZaibeiError as exc:
        failure = of_exception(exc)
        assert failure is not None
        text = f"{exc.trouble.message}\nNothing is known while it does not answer."
        return failure.document(), Text(printable(text, keep="\n"), style="red")
