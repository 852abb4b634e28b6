"""Security events as typed records: what they say, as JSON and as a line of syslog (RFC 5424). Pure.

The fields of a state event of the docking agreement are all there: event id, related id, state (abnormal, recovered), cause
(1 network, 2 system, 3 attack, 4 other) and the time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Final

FORMAT: Final = "zaibei-security-event-1"
FACILITY: Final = 13  # log audit
TEXT_CHARS_MAX: Final = 500
_ENTERPRISE: Final = "zaibei@32473"  # of structured data; 32473 is the number for documentation (RFC 5612)


class Kind(StrEnum):
    """What somebody does to us."""

    ATTACK = "attack"  # a limit is passed: a flood, or a forged address that shall be flooded
    BRUTE_FORCE = "brute_force"  # one proof after another that is wrong
    CERTIFICATE = "certificate_misuse"  # a certificate that does not count here
    SCAN = "scan"  # names are tried that are not there
    QUOTA = "quota"  # a tenant is resolved more often than was agreed
    SITE = "enterprise_site"  # an enterprise's own service, to which we refer clients, does not answer


class Severity(IntEnum):
    """As in RFC 5424, of which these are used."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5


class State(StrEnum):
    """Of the agreement."""

    ABNORMAL = "abnormal"
    RECOVERED = "recovered"


class Cause(IntEnum):
    """Of the agreement."""

    NETWORK = 1
    SYSTEM = 2
    ATTACK = 3
    OTHER = 4


SEVERITIES: Final = {
    Kind.ATTACK: Severity.ERROR,
    Kind.BRUTE_FORCE: Severity.WARNING,
    Kind.CERTIFICATE: Severity.WARNING,
    Kind.SCAN: Severity.NOTICE,
    Kind.QUOTA: Severity.NOTICE,
    Kind.SITE: Severity.NOTICE,
}


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event.

    Args:
        ident: of this event; `related`: of the one that it ends, empty where it begins something.
        client: the network it comes from, or empty where that is not one; `count`: how often it was seen so far.
        suppressed: events that were not told since the last one, because there were too many.
    """

    ident: str
    kind: Kind
    state: State
    at_ms: int
    member: str
    client: str
    what: str
    count: int
    related: str = ""
    cause: Cause = Cause.ATTACK
    suppressed: int = 0

    @property
    def severity(self) -> Severity:
        """The end of something is worth a notice."""
        return Severity.NOTICE if self.state is State.RECOVERED else SEVERITIES[self.kind]


def as_json(event: SecurityEvent) -> bytes:
    """One canonical JSON document: sorted keys, no blanks."""
    fields = {
        "format": FORMAT,
        "event_id": event.ident,
        "related_id": event.related,
        "state": event.state.value,
        "cause": int(event.cause),
        "kind": event.kind.value,
        "severity": event.severity.name.lower(),
        "at_ms": event.at_ms,
        "member": event.member,
        "client": event.client,
        "what": event.what[:TEXT_CHARS_MAX],
        "count": event.count,
        "suppressed": event.suppressed,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def as_syslog(event: SecurityEvent, host: str) -> bytes:
    """One message of RFC 5424, without framing. `host`: name of this machine."""
    at = datetime.fromtimestamp(event.at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = {
        "eventId": event.ident,
        "relatedId": event.related,
        "state": event.state.value,
        "cause": str(int(event.cause)),
        "kind": event.kind.value,
        "client": event.client,
        "count": str(event.count),
        "suppressed": str(event.suppressed),
    }
    data = " ".join(f'{name}="{_escaped(value)}"' for name, value in said.items())
    text = " ".join(event.what[:TEXT_CHARS_MAX].split())
    head = f"<{FACILITY * 8 + event.severity}>1 {at} {_name(host, 255)} zaibei {_name(event.member, 128)} {event.kind.value}"
    return f"{head} [{_ENTERPRISE} {data}] ".encode() + b"\xef\xbb\xbf" + text.encode()


def _escaped(value: str) -> str:
    return "".join(f"\\{one}" if one in '\\"]' else one for one in value if one.isprintable())


def _name(text: str, octets_max: int) -> str:
    """A header field: printable US-ASCII without blanks, `-` for none."""
    return "".join(one for one in text if "!" <= one <= "~")[:octets_max] or "-"
