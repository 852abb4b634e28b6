"""Publication adapter by file: a signed request goes into a folder; a signed answer, or what a resolver shows, confirms it.

How the files travel between the folder and the top-level node is the operators' own: a mounted share, SFTP, a person with a disk.
Of one prefix this member's newest request alone stays in the folder; those it replaces are taken away, with their answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import HS_SITE
from replica.model.handle.values import HandleValue
from replica.model.signing import Signer
from replica.model.states import Result
from replica.takeover.publish import Confirmation, Publication
from replica.takeover.request import (
    ANSWER_SUFFIX,
    FILE_OCTETS_MAX,
    REQUEST_SUFFIX,
    Said,
    about,
    judge_answer,
    name_of,
    read_request,
    seen,
    write_request,
)
from replica.takeover.top_record import RecordLook, handle_of

WAIT_S_MAX = 4.0  # of one look for an answer; whoever asks comes again
LOOK_S = 0.2
LOOK_AT_RECORD_S = 1.0
FILES_MAX = 10_000  # of the folder that are looked through
AT_ONCE_MAX = 4


@dataclass(frozen=True, slots=True)
class RequestConfig:
    """One folder.

    Args:
        name: for status and metrics.
        folder: requests go here, answers are looked for in `answers`.
        member: who asks; signer: with which key.
        issuer: name and Ed25519 public key of the top-level node that signs answers; None: answers do not count.
        own_site: HS_SITE data of this cluster, which a withdrawn record must not hold.
    """

    name: str
    folder: Path
    answers: Path
    member: str
    signer: Signer
    issuer: tuple[str, bytes] | None
    own_site: bytes = b""
    wait_s_max: float = WAIT_S_MAX


class RequestPublisher:
    """Satisfies Publisher. Idempotent: a request that is there already is not written again."""

    def __init__(self, config: RequestConfig, resolver: RecordLook | None) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): nothing could ever confirm a request."""
        if config.issuer is None and resolver is None:
            text = f"{config.name}: neither answers nor a resolver are configured, so nothing could confirm a request"
            raise ZaibeiError(Code.INVALID_CONFIG, text)
        self._config, self._resolver = config, resolver
        self._threads = ThreadPoolExecutor(AT_ONCE_MAX, thread_name_prefix=f"requests {config.name}")
        self._ours: dict[str, set[bytes]] = {}  # first sites that were asked for, by prefix

    @property
    def name(self) -> str:
        return self._config.name

    async def publish(self, publication: Publication) -> Confirmation:
        """See Publisher. Unconfirmed until somebody answers; the request stays in the folder meanwhile."""
        loop, config = asyncio.get_running_loop(), self._config
        path = config.folder / name_of(publication, config.member)
        request = await loop.run_in_executor(self._threads, self._ask, publication, path)
        end, told, look_at = loop.time() + config.wait_s_max, "nobody has answered yet", 0.0
        while True:
            said = await loop.run_in_executor(self._threads, self._answer, path, request)
            passed = said is not None and said.result is Result.PASS
            if not passed and self._resolver is not None and loop.time() >= look_at:
                looked = await self._look(self._resolver, publication)
                said = looked if said is None or looked.result is Result.PASS else said
                look_at = loop.time() + LOOK_AT_RECORD_S
            if said is not None and said.result is Result.PASS:
                return Confirmation(True, said.detail)
            told = told if said is None else said.detail
            if loop.time() + LOOK_S > end:
                return Confirmation(False, f"asked for in {path.name}: {told}")
            await asyncio.sleep(LOOK_S)

    # -- the folder, in threads of its own: a share may hang

    def _ask(self, publication: Publication, path: Path) -> bytes:
        """The request's octets, once they lie on the disk. Raises ZaibeiError(UNREACHABLE, CONFLICT)."""
        config = self._config
        octets = write_request(publication, config.member, config.signer)
        try:
            there = self._requests(publication.prefix)
            self._remember(publication, there)
            mine = {name: serial for name, (serial, member) in there.items() if member == config.member}
            highest = max(mine.values(), default=0)
            if highest > publication.serial:
                text = f"{config.name} was asked for serial {highest} of {publication.prefix} already"
                raise ZaibeiError(Code.CONFLICT, text)
            said = self._answer(path, octets)
            if _read(path) != octets and (
                said is None or said.result is Result.UNKNOWN
            ):  # answered ones may have been moved away
                _replace(path, octets)
            for name, serial in mine.items():
                if serial < publication.serial:
                    (config.folder / name).unlink(missing_ok=True)
                    _answer_of(config.answers / name).unlink(missing_ok=True)
        except OSError as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{config.name} {config.folder}: {exc.strerror}", retry=True) from exc
        return octets

    def _requests(self, prefix: str) -> dict[str, tuple[int, str]]:
        """Requests about a prefix that lie in the folder: name -> serial, member. Raises OSError."""
        found = dict[str, tuple[int, str]]()
        with os.scandir(self._config.folder) as entries:
            for _, entry in zip(range(FILES_MAX), entries, strict=False):
                one = about(entry.name)
                if one is not None and one[0] == prefix:
                    found[entry.name] = one[1:]
        return found

    def _remember(self, publication: Publication, there: Iterable[str]) -> None:
        """What of ours may stand in the record, of other members' requests too: a withdrawal has no sites of its own."""
        ours = self._ours.setdefault(publication.prefix, {self._config.own_site} - {b""})
        ours.update(publication.sites[:1])
        for name in there:
            try:
                ours.update(read_request(_read(self._config.folder / name) or b"").publication.sites[:1])
            except (ZaibeiError, OSError):
                continue  # no request of ours

    def _answer(self, path: Path, request: bytes) -> Said | None:
        config = self._config
        if config.issuer is None:
            return None
        try:
            octets = _read(_answer_of(config.answers / path.name))
        except OSError as exc:
            return Said(Result.UNKNOWN, f"its answers cannot be read: {exc.strerror}")
        return None if octets is None else judge_answer(octets, request, *config.issuer)

    # -- the resolver

    async def _look(self, resolver: RecordLook, publication: Publication) -> Said:
        try:
            values = await resolver.read(handle_of(publication.prefix), (HS_SITE.decode(),))
        except ZaibeiError as exc:
            return Said(Result.UNKNOWN, exc.trouble.message)
        ours = self._ours[publication.prefix]
        if publication.withdrawn and not ours:
            return Said(Result.UNKNOWN, "this member has no site of its own, so it cannot tell whether one stands there")
        return seen(_sites(values or ()), publication, tuple(ours))


def _sites(values: Sequence[HandleValue]) -> list[bytes]:
    return [one.data for one in sorted(values, key=lambda one: one.index) if one.type.upper() == HS_SITE]


def _answer_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(REQUEST_SUFFIX) + ANSWER_SUFFIX)


def _read(path: Path) -> bytes | None:
    """None: it is not there. Raises OSError."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_OCTETS_MAX + 1)
    except FileNotFoundError:
        return None


def _replace(path: Path, octets: bytes) -> None:
    """Whole or not at all, and on the disk. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)  # signed, and no secret
    with os.fdopen(handle, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
