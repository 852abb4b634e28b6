"""Processes of a stage: started, asked line by line, their last words read, all ended. Only our own children are ever killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from replica.model.errors import Code, ZaibeiError

READY_S_MAX = 60.0
ANSWER_S_MAX = 60.0
END_S_MAX = 5.0


@dataclass(slots=True)
class Child:
    """A process of ours."""

    name: str
    process: subprocess.Popen[bytes]
    ready: dict[str, Any] = field(default_factory=dict)


class Children(ABC):
    """Processes in one folder, each with a log there. `children`: by name, also those that have ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.children: dict[str, Child] = {}
        self._logs: list[IO[bytes]] = []
        self._begin, self._over = threading.Lock(), False
        self._asking = asyncio.Lock()

    @abstractmethod
    def command(self, name: str) -> list[str]:
        """Program and words of a process."""

    def end_all(self) -> None:
        """End all; nothing begins afterwards."""
        with self._begin:
            self._over = True
        for child in reversed(list(self.children.values())):
            if child.process.poll() is None:
                os.kill(child.process.pid, signal.SIGCONT)
                child.process.terminate()
        for child in self.children.values():
            try:
                child.process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        for log in self._logs:
            log.close()

    async def start(self, name: str) -> Child:
        """Start one and wait until it said that it serves. Raises ZaibeiError(UNREACHABLE): with its last lines."""
        return await asyncio.to_thread(self._start, name)

    def _start(self, name: str) -> Child:
        log = (self.folder / f"{name}.log").open("ab")
        self._logs.append(log)
        with self._begin:  # whoever ends the stage meanwhile knows of every process that was begun
            if self._over:
                raise ZaibeiError(Code.STOPPING, "the stage has ended")
            process = subprocess.Popen(
                self.command(name), cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            child = self.children[name] = Child(name, process)
        child.ready = self._line(child, READY_S_MAX)
        if "error" in child.ready:
            raise ZaibeiError(Code.UNREACHABLE, f"{name} does not begin: {child.ready['error']}")
        return child

    def _line(self, child: Child, seconds: float) -> dict[str, Any]:
        """The next line it prints, as JSON."""
        stdout, until = child.process.stdout, time.monotonic() + seconds
        assert stdout is not None
        os.set_blocking(stdout.fileno(), False)
        line = b""
        while not line.endswith(b"\n"):
            line += stdout.readline() or b""
            if not line.endswith(b"\n") and (child.process.poll() is not None or time.monotonic() > until):
                said = line.decode("utf-8", "replace")[-300:] + self.tail(child.name)
                raise ZaibeiError(Code.UNREACHABLE, f"{child.name} does not answer: {said}")
            time.sleep(0 if line.endswith(b"\n") else 0.005)
        found: dict[str, Any] = json.loads(line)
        return found

    def tail(self, name: str) -> str:
        """The last lines of a process's log."""
        try:
            return (self.folder / f"{name}.log").read_text("utf-8", "replace")[-800:]
        except FileNotFoundError:
            return ""

    def pid(self, name: str) -> int:
        return self.children[name].process.pid

    async def gone(self, name: str) -> None:
        """Wait for a process that was killed."""
        await asyncio.to_thread(self.children[name].process.wait, END_S_MAX)

    async def ask(self, child: str = "nodes", **command: Any) -> dict[str, Any]:
        """One command to the nodes' process, or to another of its kind. Raises ZaibeiError(UNREACHABLE)."""
        async with self._asking:
            process = self.children[child].process

            def said() -> dict[str, Any]:
                assert process.stdin is not None
                try:
                    process.stdin.write(json.dumps(command).encode() + b"\n")
                    process.stdin.flush()
                except OSError as exc:
                    raise ZaibeiError(Code.UNREACHABLE, f"the nodes' process is gone: {exc}") from exc
                return self._line(self.children[child], ANSWER_S_MAX)

            found = await asyncio.to_thread(said)
        if "error" in found:
            raise ZaibeiError(Code.UNREACHABLE, f"nodes: {found['error']}")
        return found
