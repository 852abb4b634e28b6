"""Errors as values: a stable code, whether the outcome is known, whether a retry may help, and what to do next.

Edges translate library errors into these once; logic raises or returns them; nothing logs one and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Stable codes. They travel in `Fault.code`, in JSON and in metrics; never rename one."""

    MALFORMED = "malformed"  # their octets do not parse or break a limit
    WRONG_SOURCE = "wrong_source"  # the certificate or message names another source
    WRONG_LINEAGE = "wrong_lineage"
    NOT_OWNER = "not_owner"  # a key outside the source's prefixes
    GAP = "gap"  # a batch does not follow our position
    ALREADY_APPLIED = "already_applied"
    FORKED = "forked"  # same place, other content; rewind; an epoch we did not grant
    FENCED = "fenced"  # an older epoch
    HELD = "held"  # waits for two people
    DIVERGED = "diverged"  # equal chain, different content
    SNAPSHOT_WANTED = "snapshot_wanted"  # changes we need are gone: send the full content
    SNAPSHOT_REFUSED = "snapshot_refused"
    NO_CREDIT = "no_credit"
    BUSY = "busy"  # back-pressure: again later
    OVER_QUOTA = "over_quota"  # a limit of the tenant's own; `retry`: time alone helps
    DISK_FULL = "disk_full"
    DISK_FAILED = "disk_failed"
    DAMAGED = "damaged"  # stored octets fail their checks
    NOT_FOUND = "not_found"
    NOT_AUTHORISED = "not_authorised"
    REFUSED = "refused"  # a rule of ours says no, or the world changed since the plan; nothing was done
    CONFLICT = "conflict"
    UNREACHABLE = "unreachable"
    NOT_LEADER = "not_leader"  # another member leads this source; nothing was done
    UNKNOWN = "unknown"  # the outcome is not known
    STOPPING = "stopping"
    INVALID_CONFIG = "invalid_config"
    WOULD_LOSE_DATA = "would_lose_data"
    VERIFICATION_FAILED = "verification_failed"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong, for a program and for a person.

    Args:
        code: stable code.
        message: one or two sentences: who is at fault, what to do next.
        definite: True when the outcome is known (nothing was applied).
        retry: True when the same call may succeed later.
        retry_ms: a limit is the reason, and after so many milliseconds there is room again; 0: not said.
    """

    code: Code
    message: str
    definite: bool = True
    retry: bool = False
    retry_ms: int = 0

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ZaibeiError(Exception):
    """Base of all errors of ours; carries a Trouble."""

    def __init__(self, code: Code, message: str, *, definite: bool = True, retry: bool = False, retry_ms: int = 0) -> None:
        super().__init__(message)
        self.trouble = Trouble(code, message, definite, retry, retry_ms)

    @property
    def code(self) -> Code:
        return self.trouble.code

    def again(self) -> ZaibeiError:
        """The same for one more who asks: an error that is kept and raised itself holds the frames of all who ever met it."""
        about = self.trouble
        return ZaibeiError(about.code, about.message, definite=about.definite, retry=about.retry, retry_ms=about.retry_ms)

    def __str__(self) -> str:
        return str(self.trouble)


class InvariantBroken(RuntimeError):
    """A rule of ours does not hold: the process must stop, never limp on."""


def require(condition: object, message: str) -> None:
    """Check an invariant; unlike `assert` it survives `python -O`.

    Raises:
        InvariantBroken: the condition is false.
    """
    if not condition:
        raise InvariantBroken(message)
