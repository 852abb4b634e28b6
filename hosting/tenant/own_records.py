"""Records of the audit that is a member's own: what it refused, whose words it showed, which old records it dropped. Pure.

They are of no group's log (index and term are 0), and else as those of a group: replica/model/audit.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from replica.model.audit import ALGORITHM, FORMAT, TEXT_CHARS_MAX, AuditHead, chained
from replica.model.audit_personal import dropped, split
from replica.model.audit_seal import NO_KEYS, AuditKeys

GROUP: Final = "denials"  # the audit's name, as a group's
REVEAL, DROPPED = "reveal", "dropped"


def own_record(
    head: AuditHead,
    kind: str,
    at_ms: int,
    what: str,
    who: Sequence[str],
    why: str,
    evidence: Mapping[str, Any],
    keys: AuditKeys = NO_KEYS,
) -> tuple[bytes, AuditHead]:
    """The next line, and the head after it. `at_ms`: Unix milliseconds. Without a key the personal words stand plain."""
    said: dict[str, Any] = {"what": what, "who": list(who), "why": why[:TEXT_CHARS_MAX], "evidence": dict(evidence)}
    entry = json.dumps(said["evidence"], sort_keys=True).encode()
    opened, words = split(kind, said)
    sealed = keys.seal(GROUP, kind, at_ms, words) if words else None
    if sealed is not None:
        said = opened | {"sealed": sealed.told()}
        entry += sealed.salt
    fields = {
        "format": FORMAT,
        "algorithm": ALGORITHM,
        "group": GROUP,
        "number": head.number + 1,
        "index": 0,
        "term": 0,
        "at_ms": at_ms,
        "kind": kind,
        **said,
        "effect": kind != "denial",
        "entry": sha256(entry).hexdigest(),
        "before": head.chain.hex(),
    }
    line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return line, AuditHead(head.number + 1, chained(head.chain, line), head.first)


def reveal_record(
    head: AuditHead, at_ms: int, group: str, numbers: Sequence[int], who: str, why: str, keys: AuditKeys
) -> tuple[bytes, AuditHead]:
    """Somebody was shown the personal words of these records of a group."""
    evidence = {"group": group, "numbers": list(numbers)}
    what = f"personal words of {len(numbers)} records of {group} are shown"
    return own_record(head, REVEAL, at_ms, what, [who], why, evidence, keys)


def dropped_record(head: AuditHead, at_ms: int, first: int, last: int, chain: str, kept_days: int) -> tuple[bytes, AuditHead]:
    """These records are dropped: the next one kept follows `chain`. Nobody's words are in it, so nothing is sealed."""
    what, who, why, evidence = dropped(first, last, chain, kept_days)
    return own_record(head, DROPPED, at_ms, what, who, why, evidence)
