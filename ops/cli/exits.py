"""Exit codes of every command, and which trouble ends in which. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.states import Result


class Exit(IntEnum):
    """A contract for scripts: never renumber one."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_AUTHORISED = 3
    REFUSED = 4
    NOT_FOUND = 6
    CONFLICT = 7
    UNREACHABLE = 8
    VERIFICATION_FAILED = 9
    UNKNOWN = 11
    WOULD_LOSE_DATA = 12


MEANING: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "failed; the message says why",
    Exit.USAGE: "the command or the configuration is wrong; nothing was done",
    Exit.NOT_AUTHORISED: "not authorised: a key, a certificate, an approval or a file's rights; nothing was done",
    Exit.REFUSED: "refused by a rule, or the world changed since the plan; nothing was changed",
    Exit.NOT_FOUND: "what was named does not exist",
    Exit.CONFLICT: "in conflict with what is there",
    Exit.UNREACHABLE: "not reachable or busy: the same command may succeed later",
    Exit.VERIFICATION_FAILED: "looked, and it is not as it should be",
    Exit.UNKNOWN: "the outcome, or the state asked for, is not known; look before you repeat",
    Exit.WOULD_LOSE_DATA: "would lose data, so it was not done",
}

VERDICTS: dict[Result, Exit] = {Result.PASS: Exit.DONE, Result.FAIL: Exit.VERIFICATION_FAILED, Result.UNKNOWN: Exit.UNKNOWN}

OF_CODE: dict[Code, Exit] = {
    Code.MALFORMED: Exit.USAGE,
    Code.INVALID_CONFIG: Exit.USAGE,
    Code.WRONG_SOURCE: Exit.NOT_AUTHORISED,
    Code.NOT_OWNER: Exit.NOT_AUTHORISED,
    Code.NOT_AUTHORISED: Exit.NOT_AUTHORISED,
    Code.REFUSED: Exit.REFUSED,
    Code.HELD: Exit.REFUSED,
    Code.OVER_QUOTA: Exit.REFUSED,
    Code.FENCED: Exit.REFUSED,
    Code.SNAPSHOT_REFUSED: Exit.REFUSED,
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.CONFLICT: Exit.CONFLICT,
    Code.WRONG_LINEAGE: Exit.CONFLICT,
    Code.GAP: Exit.CONFLICT,
    Code.ALREADY_APPLIED: Exit.CONFLICT,
    Code.FORKED: Exit.CONFLICT,
    Code.UNREACHABLE: Exit.UNREACHABLE,
    Code.NOT_LEADER: Exit.UNREACHABLE,
    Code.BUSY: Exit.UNREACHABLE,
    Code.NO_CREDIT: Exit.UNREACHABLE,
    Code.STOPPING: Exit.UNREACHABLE,
    Code.SNAPSHOT_WANTED: Exit.UNREACHABLE,
    Code.VERIFICATION_FAILED: Exit.VERIFICATION_FAILED,
    Code.DIVERGED: Exit.VERIFICATION_FAILED,
    Code.DAMAGED: Exit.VERIFICATION_FAILED,
    Code.UNKNOWN: Exit.UNKNOWN,
    Code.WOULD_LOSE_DATA: Exit.WOULD_LOSE_DATA,
    Code.DISK_FULL: Exit.FAILED,
    Code.DISK_FAILED: Exit.FAILED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a command ended that did not do its work: for the person, and as the `error` of `--json`."""

    code: str
    message: str
    exit: Exit
    definite: bool = True
    retry: bool = False

    def document(self) -> dict[str, object]:
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "exit": int(self.exit),
                "definite": self.definite,
                "retry": self.retry,
            }
        }


def of_trouble(trouble: Trouble) -> Failure:
    """A Trouble whose outcome is not known ends in 11, whatever its code."""
    end = OF_CODE[trouble.code] if trouble.definite else Exit.UNKNOWN
    return Failure(str(trouble.code), trouble.message, end, trouble.definite, trouble.retry)


# errno -> code, exit, what to do next
_SYSTEM: dict[int, tuple[Code, str]] = {
    errno.ENOSPC: (Code.DISK_FULL, "make room on this disk; nothing stored is lost"),
    errno.EDQUOT: (Code.DISK_FULL, "make room or raise this user's quota"),
    errno.EACCES: (Code.NOT_AUTHORISED, "check owner and mode, or run as the user it belongs to"),
    errno.EPERM: (Code.NOT_AUTHORISED, "check owner and mode, or run as the user it belongs to"),
    errno.EROFS: (Code.NOT_AUTHORISED, "this disk is mounted read-only: remount it, or name another folder"),
    errno.EADDRINUSE: (Code.CONFLICT, "another program listens there: stop it (`ss -ltunp` shows it), or change [listen]"),
    errno.EADDRNOTAVAIL: (Code.INVALID_CONFIG, "this machine does not have that address: correct [listen]"),
    errno.EIO: (Code.DISK_FAILED, "look at the disk (`dmesg`); do not go on writing to it"),
    errno.EMFILE: (Code.BUSY, "raise the limit of open files (`ulimit -n`, LimitNOFILE=), or lower [limits]"),
    errno.ENOENT: (Code.NOT_FOUND, "check the path"),
    errno.ENOTDIR: (Code.NOT_FOUND, "check the path: a part of it is a file"),
    errno.EISDIR: (Code.MALFORMED, "name a file, not a folder"),
    errno.ECONNREFUSED: (Code.UNREACHABLE, "nobody listens there: check the address, or start the other side"),
    errno.ECONNRESET: (Code.UNREACHABLE, "the other side went away: try again, and look at its log"),
    errno.EHOSTUNREACH: (Code.UNREACHABLE, "check the network between the two machines"),
    errno.ENETUNREACH: (Code.UNREACHABLE, "check the network between the two machines"),
    errno.ETIMEDOUT: (Code.UNREACHABLE, "no answer in time: try again, check the network and the other side"),
}


def of_system(exc: OSError) -> Failure | None:
    """An operating error of the system in our words; None for one we have none for: a fault of ours until proved otherwise."""
    number = errno.ETIMEDOUT if isinstance(exc, TimeoutError) else exc.errno or 0
    if number not in _SYSTEM:
        return None
    code, hint = _SYSTEM[number]
    what = exc.strerror or "no answer in time"
    where = f"{exc.filename}: " if exc.filename else ""
    return Failure(str(code), f"{where}{what[:1].lower()}{what[1:]}. Next: {hint}", OF_CODE[code], retry=code is Code.UNREACHABLE)


def of_exception(exc: BaseException) -> Failure | None:
    """The failure an exception means; None: a fault of ours, to be shown with its traceback."""
    failures = []
    for leaf in _leaves(exc):
        if isinstance(leaf, ZaibeiError):
            failures.append(of_trouble(leaf.trouble))
        elif isinstance(leaf, OSError) and (failure := of_system(leaf)) is not None:
            failures.append(failure)
        else:
            return None
    return failures[0] if failures else None


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc
