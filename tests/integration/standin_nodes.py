"""Starts stand-in nodes as real processes for tests, and ends exactly those."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosting.client.lookup import Server

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Node:
    """One running stand-in."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def server(self, protocol: str, host: str = "127.0.0.1") -> Server:
        return Server(protocol, host, self.ready["ports"][protocol])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def site(self) -> str:
        return str(self.ready["site"])


def start(module: str, *arguments: str) -> Node:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"{module} ended with {process.wait()} before it was ready")
    return Node(process, json.loads(line))


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Node]:
    node = start(module, *arguments)
    try:
        yield node
    finally:
        node.kill()


def write_config(folder: Path, name: str, prefixes: Sequence[str], lines: Sequence[dict[str, Any]], **settings: Any) -> Path:
    """A stand-in secondary's file and configuration."""
    write_lines(folder / f"{name}.jsonl", lines)
    text = [f'name = "{name}"', f'files = ["{name}.jsonl"]', f"prefixes = {json.dumps(list(prefixes))}"]
    text += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(text))
    return path


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    new = path.with_suffix(".new")
    new.write_text("".join(json.dumps(line) + "\n" for line in lines))
    new.replace(path)


def record(handle: str, url: str, *more: dict[str, Any]) -> dict[str, Any]:
    return {"handle": handle, "values": [{"index": 1, "type": "URL", "data": url, "ttl": 60}, *more]}


def route(prefix: str, *sites: bytes, ttl: int = 300) -> dict[str, Any]:
    """A prefix's record with sites given as data octets."""
    values = [
        {"index": place, "type": "HS_SITE", "data": {"format": "hex", "value": site.hex()}, "ttl": ttl}
        for place, site in enumerate(sites, 1)
    ]
    return {"prefix": prefix, "sites": [], "values": values}


async def until(check: Callable[[], Awaitable[bool]], limit_s: float = 30.0) -> None:
    """Wait until something is so; fails when it never is."""
    for _ in range(int(limit_s / 0.05)):
        if await check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to be")
