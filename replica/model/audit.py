"""The audit of one group: a record of each decision, derived from committed entries alone and chained by SHA-256. Pure.

Every member derives the same octets from the same entries, so all members of a group agree about the head of the chain. A record
is one line of canonical JSON (keys sorted, no spaces):

    {"format": "zaibei-audit-1", "algorithm": "sha256", "group", "number": from 1, "index", "term", "at_ms": as the entry states,
     "kind", "what", "who": [names], "why", "evidence": {…}, "effect": whether it changed anything,
     "sealed": personal words, encrypted, in place of the plain ones (audit_personal.py, audit_seal.py),
     "entry": SHA-256 of the entry's octets, "before": chain before this record, hex}

    chain after a record = SHA-256("zaibei-audit-chain-1\\0" | chain before | SHA-256(line)); before the first one: 32 zero octets

What a record says of each kind of entry is a fixed table (format 1): a new field of an entry changes no record, or members of two
versions would disagree. Batches, leases and equal checks decide nothing and leave none; a registration leaves one only where it
changes documents about the tenant (audit_documents.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from replica.model.audit_documents import documents_in
from replica.model.audit_personal import SEALED, split
from replica.model.audit_seal import AuditKeys, Sealed
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import entry_pb2

FORMAT, ALGORITHM = "zaibei-audit-1", "sha256"
SEALED_FORMAT = 2  # of an entry with sealed words: a member that does not know them must not make another record of it
NO_CHAIN = bytes(32)
TEXT_CHARS_MAX = 2_000
LIST_MAX = 64  # names and parts of one record; what is more is counted


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The newest record: its number (0: there is none yet) and the chain after it. `first`: number of the oldest one kept."""

    number: int = 0
    chain: bytes = NO_CHAIN
    first: int = 1

    def __str__(self) -> str:
        return f"{self.number}:{self.chain.hex()}"

    @staticmethod
    def parse(text: str) -> AuditHead:
        """Number and chain back. Raises ZaibeiError(MALFORMED)."""
        try:
            number, chain = text.split(":")
            head = AuditHead(int(number), bytes.fromhex(chain))
        except ValueError:
            head = AuditHead(0, b"")
        if len(head.chain) != 32:
            raise ZaibeiError(
                Code.MALFORMED, f"not the head of an audit: {text[:100]!r}; write NUMBER:CHAIN as `audit list` shows"
            )
        return head


@dataclass(frozen=True, slots=True)
class Decided:
    """What an entry decides."""

    what: str
    who: tuple[str, ...] = ()
    why: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Where:
    """Where an entry stands in its group's log."""

    group: str
    index: int
    term: int
    at_ms: int


def chained(before: bytes, line: bytes) -> bytes:
    """Chain after one record."""
    return sha256(b"zaibei-audit-chain-1\0" + before + sha256(line).digest()).digest()


def record(
    where: Where, head: AuditHead, kind: str, body: Any, entry: bytes, *, effect: bool, sealed: Sealed | None = None
) -> tuple[bytes, AuditHead] | None:
    """The next record of a group.

    Args:
        body: of the entry, of that kind; entry: its octets. effect: it changed the group's state.
        sealed: the personal words, as its proposer sealed them: they stand in place of the plain ones. None: it sealed none.
    Returns:
        Its line and the head after it; None: an entry that decides nothing.
    """
    if not effect and kind not in ALWAYS:
        return None
    decided = _decided(kind, body)
    if decided is None:
        return None
    said = _said(decided)
    if sealed is not None:
        said = split(kind, said)[0] | {"sealed": sealed.told()}
    fields = {
        "format": FORMAT,
        "algorithm": ALGORITHM,
        "group": where.group,
        "number": head.number + 1,
        "index": where.index,
        "term": where.term,
        "at_ms": where.at_ms,
        "kind": kind,
        **said,
        "effect": effect,
        "entry": sha256(entry).hexdigest(),
        "before": head.chain.hex(),
    }
    line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return line, AuditHead(head.number + 1, chained(head.chain, line), head.first)


def sealed_words(group: str, kind: str, body: Any, at_ms: int, keys: AuditKeys) -> Sealed | None:
    """For who proposes an entry: the personal words of its record, sealed. None: it has none, or there is no key."""
    decided = _decided(kind, body) if keys and kind in SEALED else None
    words = {} if decided is None else split(kind, _said(decided))[1]
    return keys.seal(group, kind, at_ms, words) if words else None


def seal_entry(group: str, entry: entry_pb2.Entry, keys: AuditKeys) -> None:
    """Put the sealed words of its record into an entry that is about to be proposed. Twice does no harm: the later counts."""
    kind = entry.WhichOneof("body") or ""
    sealed = sealed_words(group, kind, getattr(entry, kind), entry.admitted_ms, keys) if kind in SEALED else None
    if sealed is not None:
        entry.format = SEALED_FORMAT
        entry.sealed.key, entry.sealed.words, entry.sealed.salt = sealed.key, sealed.words, sealed.salt


def sealed_in(entry: entry_pb2.Entry) -> Sealed | None:
    """What its proposer sealed."""
    return Sealed(entry.sealed.key, entry.sealed.words, entry.sealed.salt) if entry.HasField("sealed") else None


def _said(decided: Decided) -> dict[str, Any]:
    return {
        "what": decided.what[:TEXT_CHARS_MAX],
        "who": list(decided.who),
        "why": decided.why[:TEXT_CHARS_MAX],
        "evidence": dict(decided.evidence),
    }


def _decided(kind: str, body: Any) -> Decided | None:
    if kind == "registration":
        said = documents_in(body)
        return None if said is None else Decided(*said)
    derive = TABLE.get(kind)
    return None if derive is None else derive(body)


# ------------------------------------------------------------------------------------------------------ what entries say


def _at(message: Any) -> str:
    try:
        return str(Position.from_wire(message))
    except ZaibeiError:
        return ""


def _short(message: Any) -> str:
    try:
        return Position.from_wire(message).short()
    except ZaibeiError:
        return "no position"


def _names(found: Iterable[str]) -> tuple[str, ...]:
    every = sorted({one for one in found if one})
    return (*every[:LIST_MAX], f"and {len(every) - LIST_MAX} more") if len(every) > LIST_MAX else tuple(every)


def _operators(approvals: Iterable[Any]) -> tuple[str, ...]:
    return _names(approval.operator for approval in approvals)


def _signatures(approvals: Iterable[Any]) -> list[dict[str, str]]:
    return [
        {"operator": one.operator, "key_id": one.signature.key_id.hex(), "signature": one.signature.signature.hex()}
        for one in list(approvals)[:LIST_MAX]
    ]


def _word(message: Any, name: str, prefix: str) -> str:
    """An enum's word without its prefix; of a value this version does not know, its number."""
    number = int(getattr(message, name))
    known = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number.get(number)
    return str(known.name).removeprefix(prefix).lower() if known is not None else str(number)


def _hash(octets: bytes) -> str:
    return sha256(octets).hexdigest() if octets else ""


def _grant(body: Any) -> Decided:
    evidence = {"parent": _at(body.parent), "start": _at(body.start)}
    return Decided(f"epoch {body.start.epoch} granted after {_short(body.parent)}", _names([body.holder]), body.reason, evidence)


def _taken(body: Any) -> Decided:
    return Decided(f"the source goes on from {_short(body.position)}", (), "", {"position": _at(body.position)})


def _asked(body: Any) -> Decided:
    return Decided("the source asks for an epoch", (), body.reason, {"head": _at(body.head)})


def _mark(body: Any) -> Decided:
    evidence = {"code": body.code, "ours": _at(body.ours), "theirs": _at(body.theirs)}
    return Decided(f"the feed is {_word(body, 'state', 'STATE_')}", (), body.reason, evidence)


def _hold(body: Any) -> Decided:
    counts = {"removed": sum(one.removed for one in body.would_be), "rewritten": sum(one.rewritten for one in body.would_be)}
    what = f"generation {body.side} is held" if body.side else "a batch is held"
    return Decided(what, (), body.reason, {"follows": _at(body.follows), "batch": _hash(body.batch), "side": body.side, **counts})


def _decision(body: Any) -> Decided:
    what = f"what is held at {body.hold} is {'released' if body.release else 'discarded'}"
    evidence = {"plan": _hash(body.plan.encode()), "approvals": _signatures(body.approvals)}
    return Decided(what, _operators(body.approvals), "", evidence)


def _overlay(body: Any) -> Decided:
    what = f"sites of {body.prefix} {'are withdrawn' if body.withdrawn else 'are answered in place of its own'}"
    evidence = {
        "act": body.act,
        "serial": body.serial,
        "shadow": body.shadow,
        "sites": [_hash(one) for one in body.sites[:LIST_MAX]],
    }
    return Decided(what, (), body.act, evidence)


def _authority(body: Any) -> Decided:
    kind = _word(body, "kind", "KIND_")
    return Decided(f"who answers: {kind}", (), body.reason, {"act": body.act, "decided_ms": body.decided_ms})


def _ownership(body: Any) -> Decided:
    evidence = {"version": body.version, "prefixes": list(body.prefixes[:LIST_MAX]), "prefixes_total": len(body.prefixes)}
    return Decided(f"{len(body.prefixes)} prefixes are owned, version {body.version}", (), "", evidence)


def _node(body: Any) -> Decided:
    where = [f"{one.protocol} {one.address} {one.port}" for one in body.resolution[:LIST_MAX]]
    return Decided(f"the node says that it answers at {len(body.resolution)} addresses", (), "", {"resolution": where})


def _check(body: Any) -> Decided:
    theirs = body.certificate.digest
    evidence = {"position": _at(theirs.position), "records_stated": theirs.records, "sum_stated": theirs.sum.hex()}
    return Decided("content compared with the source's certificate", (), "", evidence)


def _load(verb: str) -> Callable[[Any], Decided]:
    def derive(body: Any) -> Decided:
        evidence = {"side": body.side, "position": _at(body.position) if hasattr(body, "position") else ""}
        return Decided(f"generation {body.side} {verb}", (), getattr(body, "reason", ""), evidence)

    return derive


def _ladder(body: Any) -> Decided:
    what = f"the ladder moves from {_word(body, 'from', 'STAGE_')} to {_word(body, 'stage', 'STAGE_')}"
    evidence: dict[str, Any] = {"act": body.act, "decided_ms": body.decided_ms}
    who: tuple[str, ...] = ()
    if body.HasField("proposed"):
        evidence |= {"plan": _hash(body.proposed.plan.encode()), "automatic": body.proposed.automatic}
        evidence |= {"accepted": body.proposed.accepted, "accepts_unknown": body.proposed.accepts_unknown}
    if body.HasField("approved"):
        who = _operators(body.approved.approvals)
        evidence |= {"approvals": _signatures(body.approved.approvals), "orders": list(body.approved.orders[:LIST_MAX])}
        evidence["break_glass"] = body.approved.break_glass
    if body.HasField("lease"):
        evidence |= {"lease_renewed_index": body.lease.renewed_index, "lease_waited_ms": body.lease.waited_ms}
    if body.HasField("grant"):
        evidence |= {"holder": body.grant.holder, "parent": _at(body.grant.parent), "start": _at(body.grant.start)}
    return Decided(what, who, body.reason, evidence)


def _order(body: Any) -> Decided:
    what = f"order {body.number} of the top-level node: {_word(body, 'kind', 'KIND_')} of {_word(body, 'function', 'FUNCTION_')}"
    evidence = {"issued_ms": body.issued_ms, "until_ms": body.until_ms, "signature": body.signature.signature.hex()}
    return Decided(what, (body.signature.key_id.hex()[:16],), body.reason, evidence)


def _review(body: Any) -> Decided:
    evidence = {"act": body.act, "approvals": _signatures([body.approval])}
    return Decided("a break-glass act is reviewed", _operators([body.approval]), body.verdict, evidence)


def _block(body: Any) -> Decided:
    evidence: dict[str, Any] = {"plan": _hash(body.plan.encode()), "approvals": _signatures([body.approval])}
    who = _operators([body.approval])
    if body.lifted:
        return Decided(f"order {body.order} to block is lifted", who, body.reason, evidence)
    named = [*body.identifiers[:LIST_MAX], *(f"prefix {one}" for one in body.prefixes[:LIST_MAX])]
    evidence |= {"number": body.number, "until_ms": body.until_ms, "blocked": named}
    return Decided(f"order {body.number} blocks {len(named)} identifiers and prefixes", who, body.reason, evidence)


def _prefix_move(body: Any) -> Decided:
    evidence = {"act": body.act, "number": body.number, "version": body.version, "position": body.position}
    evidence |= {"records": body.records, "digest": body.digest.hex(), "decided_ms": body.decided_ms}
    what = f"prefix {body.prefix} moves from {body.source} to {body.target}: {_word(body, 'step', 'STEP_')}"
    return Decided(what, _names([body.by]), body.reason, evidence)


def _ledger_decision(body: Any) -> Decided:
    what = f"{len(body.lines)} diverged writes {'enter' if body.accept else 'stay out'}"
    lines = [one.hex() for one in body.lines[:LIST_MAX]]
    evidence = {"common": _at(body.common), "lines": lines, "approvals": _signatures([body.approval])}
    return Decided(what, _operators([body.approval]), body.reason, evidence)


def _ledger_enter(body: Any) -> Decided:
    evidence = {"common": _at(body.common), "lines": [one.hex() for one in body.lines[:LIST_MAX]]}
    return Decided(f"{len(body.lines)} accepted writes enter as changes of the current epoch", (), "", evidence)


def _control(body: Any) -> Decided:
    inner = body.WhichOneof("body") or ""
    one: Any = getattr(body, inner) if inner else None
    evidence: dict[str, Any] = {"act": body.act}
    match inner:
        case "begun":
            what = f"the cluster begins, {one.replicas} voters a group"
            evidence |= {"cluster": one.cluster.hex(), "lineage": one.lineage.hex()}
        case "admitted":
            what = f"member {one.name!r} is admitted"
            evidence |= {
                "zone": one.zone,
                "links": list(one.links[:LIST_MAX]),
                "serial": one.certificate_serial,
                "replaces": one.replaces,
            }
        case "changed":
            what = f"what is known of member {one.member} changes"
            evidence |= {"member": one.member, "zone": one.zone, "draining": one.draining, "journal": one.journal.hex()}
        case "removed":
            return Decided(f"member {one.member} is removed", (), one.reason, evidence | {"member": one.member})
        case "placed":
            what = f"group {one.name!r} shall live at {', '.join(map(str, one.voters))}"
            evidence |= {"voters": list(one.voters), "learners": list(one.learners), "leader": one.leader}
        case "prefix_moved":
            what = f"prefix {one.prefix} moves from {one.source} to {one.target}: {'acquired' if one.acquired else 'recorded'}"
            evidence |= {"move": one.act, "number": one.number, "records": one.records, "digest": one.digest.hex()}
        case _:
            what = f"a decision of kind {inner!r}"
    return Decided(what, (), "", evidence)


TABLE: dict[str, Callable[[Any], Decided]] = {
    "grant": _grant,
    "grant_taken": _taken,
    "epoch_ask": _asked,
    "mark": _mark,
    "hold": _hold,
    "decision": _decision,
    "load_begin": _load("begins to be loaded"),
    "load_switch": _load("becomes the live copy"),
    "load_abort": _load("is given up"),
    "ownership": _ownership,
    "node": _node,
    "overlay": _overlay,
    "authority": _authority,
    "check": _check,
    "ladder": _ladder,
    "order": _order,
    "review": _review,
    "block": _block,
    "prefix_move": _prefix_move,
    "ledger_decision": _ledger_decision,
    "ledger_enter": _ledger_enter,
    "control": _control,
}
ALWAYS = frozenset(
    {
        "epoch_ask", "decision", "overlay", "authority", "grant", "ladder", "order", "review", "ledger_decision", "block",
        "prefix_move",
    }
)  # fmt: skip
"""Acts: recorded also where a rule refused them. Everything else only where it changed something."""


# ---------------------------------------------------------------------------------------------------------- verification


@dataclass(frozen=True, slots=True)
class Broken:
    """What is wrong with an audit, and at which record (0: as a whole)."""

    number: int
    fault: str  # changed, missing, reordered, cut, foreign, unreadable
    detail: str


def check_chain(lines: Sequence[bytes], group: str, first: int, before: bytes, end: AuditHead | None) -> list[Broken]:
    """Walk records; every fault that can be told apart is told.

    Args:
        first, before: number of the first record, and the chain before it.
        end: where the chain must end; None: not known.
    """
    found: list[Broken] = []
    expected, chain = first, before
    for line in lines:
        fields = _fields(line)
        if fields is None or (fields.get("format"), fields.get("algorithm")) != (FORMAT, ALGORITHM):
            found.append(Broken(expected, "unreadable", "not a record of this format"))
            expected, chain = expected + 1, chained(chain, line)
            continue
        number, stated = fields["number"], fields["before"]
        if fields["group"] != group:
            found.append(Broken(number, "foreign", f"a record of group {fields['group']!r} in the audit of {group!r}"))
        if number > expected:
            found.append(Broken(expected, "missing", f"records {expected} to {number - 1} are missing"))
        elif number < expected:
            found.append(Broken(number, "reordered", f"record {number} stands where {expected} belongs"))
        elif stated != chain.hex():
            found.append(Broken(max(first, number - 1), "changed", f"record {number} follows another one"))
        expected, chain = number + 1, chained(bytes.fromhex(stated), line)
    if end is not None and (expected - 1, chain) != (end.number, end.chain):
        if expected - 1 < end.number:
            found.append(Broken(expected, "cut", f"it ends at record {expected - 1}, and must end at {end.number}"))
        else:
            found.append(Broken(expected - 1, "changed", f"record {expected - 1} is not the one that the chain ends with"))
    return found


def _fields(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
        bytes.fromhex(fields["before"])
        return fields if isinstance(fields["number"], int) and isinstance(fields["group"], str) else None
    except (ValueError, KeyError, TypeError):
        return None
