"""Publication adapter for a program of the operator's: it announces a node's service address from our site (a routing hook).

    PROGRAM announce|withdraw PREFIX SERIAL        environment: ZAIBEI_ACT, ZAIBEI_SHADOW (1 in a rehearsal, else 0), PATH, LANG

Exit code 0 confirms, any other does not; what it printed is shown to people. It is run again, with the same arguments, until it
exits with 0, so it must be fit for that. No shell is involved; it has a time limit, after which it and all it started are killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.takeover.publish import Confirmation, Publication

RUN_S_MAX = 4.5  # less than whoever asks for a publication waits
PRINTED_OCTETS_MAX = 4_096  # kept of what it prints; the rest is read and forgotten
SHOWN_CHARS_MAX = 200
PIPE_OCTETS, PIPE_READS_MAX = 65_536, 64
AT_ONCE_MAX = 4
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class HookConfig:
    """One program.

    Args:
        name: for status and metrics.
        program: absolute path of an executable file that only its owner may change.
    """

    name: str
    program: Path
    run_s_max: float = RUN_S_MAX


class HookPublisher:
    """Satisfies Publisher."""

    def __init__(self, config: HookConfig) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): a path that is not absolute."""
        if not config.program.is_absolute():
            raise ZaibeiError(
                Code.INVALID_CONFIG, f"{config.program}: the program of {config.name} is named by its absolute path"
            )
        self._config = config
        self._serials: dict[str, int] = {}
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    @property
    def name(self) -> str:
        return self._config.name

    async def publish(self, publication: Publication) -> Confirmation:
        """See Publisher. The program's own word counts: nobody here can look at routes."""
        highest = self._serials.get(publication.prefix, 0)
        if publication.serial < highest:
            raise ZaibeiError(Code.CONFLICT, f"{self.name} was run for serial {highest} of {publication.prefix} already")
        self._serials[publication.prefix] = publication.serial
        async with self._turns:
            self._check()
            code, printed = await self._run(publication)
        shown = _shown(printed)
        return Confirmation(code == 0, f"exit {code}{f': {shown}' if shown else ''}")

    def _check(self) -> None:
        """Raises ZaibeiError: INVALID_CONFIG, NOT_AUTHORISED."""
        program = self._config.program
        try:
            about = program.stat()
        except OSError as exc:
            raise ZaibeiError(Code.INVALID_CONFIG, f"{program} cannot be run: {exc.strerror}", retry=True) from exc
        if not stat.S_ISREG(about.st_mode) or not os.access(program, os.X_OK):
            raise ZaibeiError(Code.INVALID_CONFIG, f"{program} is no executable file: chmod 755 it", retry=True)
        if about.st_mode & 0o022:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{program} may be changed by others than its owner: chmod 755 it", retry=True)

    async def _run(self, publication: Publication) -> tuple[int, bytes]:
        """(exit code, what it printed). Raises ZaibeiError(UNREACHABLE): killed at its time limit, so nothing is known."""
        config, verb = self._config, "withdraw" if publication.withdrawn else "announce"
        environment = {
            "PATH": SAFE_PATH,
            "LANG": "C.UTF-8",
            "ZAIBEI_ACT": publication.act,
            "ZAIBEI_SHADOW": "1" if publication.shadow else "0",
        }
        words = (str(config.program), verb, publication.prefix, str(publication.serial))
        try:
            printed = _Printed()
        except OSError as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{config.program} was not run: {exc}", retry=True) from exc
        with closing(printed):
            try:
                process = await asyncio.create_subprocess_exec(
                    *words, cwd="/", env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=printed.write_end,
                    stderr=asyncio.subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as exc:  # no such interpreter; a zero octet in an argument
                raise ZaibeiError(Code.INVALID_CONFIG, f"{config.program} cannot be run: {exc}", retry=True) from exc
            try:
                printed.begin()
                async with asyncio.timeout(config.run_s_max):
                    code = await process.wait()
                return code, printed.end()
            except TimeoutError:
                text = f"{self.name}: {config.program} {verb} was killed after {config.run_s_max} s: {_shown(printed.end())}"
                raise ZaibeiError(Code.UNREACHABLE, text, definite=False, retry=True) from None
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()


class _Printed:
    """The first octets out of a pipe of our own: what the program leaves running may keep its end, and holds up nobody."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._octets = bytearray()
        self._loop = asyncio.get_running_loop()
        self._open = [self._read_end, self.write_end]

    def begin(self) -> None:
        """The program has its end: ours goes, and reading begins."""
        self._open.remove(self.write_end)
        os.close(self.write_end)
        self._loop.add_reader(self._read_end, self._readable)

    def _readable(self) -> bool:
        try:
            chunk = os.read(self._read_end, PIPE_OCTETS)
        except BlockingIOError:
            return False
        self._octets += chunk[: PRINTED_OCTETS_MAX - len(self._octets)]
        if not chunk:
            self._loop.remove_reader(self._read_end)
        return bool(chunk)

    def end(self) -> bytes:
        """What was printed before the program ended lies in the pipe: at most its size is left to read."""
        for _ in range(PIPE_READS_MAX):
            if not self._readable():
                break
        return bytes(self._octets)

    def close(self) -> None:
        self._loop.remove_reader(self._read_end)
        while self._open:
            os.close(self._open.pop())


def _shown(printed: bytes) -> str:
    """The first of what it printed, on one line."""
    text = printed.decode("utf-8", "replace")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:SHOWN_CHARS_MAX]
