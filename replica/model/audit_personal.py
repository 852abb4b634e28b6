"""Which words of an audit record are about persons, what is shown of them, and how long records are kept. Pure.

| field | where | personal because | shown masked as |
| --- | --- | --- | --- |
| who | all but `grant` | names and keys of persons: operators, `index:handle`, fingerprints of certificates | `300:88.118.9/L…` |
| why | every record but `denial` | free text that a person wrote: names, telephone numbers, cases | its length alone |
| what | `registration` | names of documents: `right/ID`, `person/300:88.118.9/LI` | that documents are changed |
| evidence.documents | `registration` | the same names, each with the SHA-256 of its body | their number |
| evidence.approvals | every act that is signed | operator, key and signature of each | their number |
| evidence.client | `denial` | address of whoever asked | its /24, of IPv6 its /56 |

Everything else is open: kind, time, effect, positions, prefixes, identifiers that an order blocks (public in their registry),
names of members and sources, counts, hashes of what was signed. `why` of a denial is one of a few fixed ones. Entries of SEALED
kinds go into the log with these words encrypted (audit_seal.py); in those of MACHINES nothing is personal. All others are masked.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

KEPT_DAYS: Final = 183  # six months at least: no record that is younger is ever dropped, whatever their number
DAY_MS: Final = 86_400_000
SHOWN_MASK: Final = "masked"  # of words that cannot be opened here
NET_BITS: Final = {4: 24, 6: 56}  # of an address, that are shown

DENIAL, REGISTRATION = "denial", "registration"
SEALED: Final = frozenset(
    {
        "grant",
        "epoch_ask",
        "decision",
        "overlay",
        "authority",
        "ladder",
        "order",
        "review",
        "block",
        "ledger_decision",
        "prefix_move",
        "control",
        REGISTRATION,
    }
)
"""Kinds of entries in which persons act or speak: their proposer encrypts what is personal before the log takes them."""
MACHINES: Final = frozenset(
    {
        "grant_taken", "mark", "hold", "load_begin", "load_switch", "load_abort", "ownership", "node", "check", "ledger_enter",
        "dropped",
    }
)  # fmt: skip
"""Kinds in which machines alone speak: nothing of them is personal, and whoever is called at night must read it."""
MEMBER_ACTS: Final = frozenset({"grant"})  # `who` is the name of a member
EVIDENCE: Final = ("approvals", "client", "documents")
OPEN_NAMES: Final = frozenset({"others", "zaibei"})  # nobody's
OPEN_WHAT: Final = {REGISTRATION: "the tenant's documents are changed"}


def split(kind: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of these fields (what, who, why, evidence) may stand open, and the personal words. Together they are the fields."""
    evidence = dict(fields["evidence"])
    words: dict[str, Any] = {}
    who = list(fields["who"])
    if who and kind not in MEMBER_ACTS:
        words["who"] = list(fields["who"])
    if fields["why"] and kind != DENIAL:
        words["why"] = fields["why"]
    if kind in OPEN_WHAT:
        words["what"] = fields["what"]
    if found := {name: evidence.pop(name) for name in EVIDENCE if evidence.get(name)}:
        words["evidence"] = found
    opened = {
        "what": OPEN_WHAT.get(kind, fields["what"]),
        "who": who if kind in MEMBER_ACTS else [],
        "why": fields["why"] if kind == DENIAL else "",
        "evidence": evidence,
    }
    return opened, words


def joined(fields: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its personal words in place: as if it had never been sealed."""
    plain = {name: words[name] for name in ("what", "who", "why") if name in words}
    rest = {name: value for name, value in fields.items() if name != "sealed"}
    return {**rest, **plain, "evidence": {**fields["evidence"], **words.get("evidence", {})}}


def masked(fields: Mapping[str, Any], words: Mapping[str, Any] | None) -> dict[str, Any]:
    """A record as it is shown to whoever states no reason.

    Args:
        words: its personal words; None: they are sealed and cannot be opened here.
    """
    if fields["kind"] in MACHINES:
        return dict(fields)
    if words is None:
        return {**fields, "who": fields["who"] or [SHOWN_MASK], "why": fields["why"] or SHOWN_MASK}
    plain = joined(fields, words)
    evidence = dict(plain["evidence"])
    if client := evidence.get("client"):
        evidence["client"] = network(client)
    for name in ("approvals", "documents"):
        if name in evidence:
            evidence[name] = f"{len(evidence[name])} {SHOWN_MASK}"
    why, kind = plain["why"], plain["kind"]
    return {
        **plain,
        "what": OPEN_WHAT.get(kind, plain["what"]),
        "who": plain["who"] if kind in MEMBER_ACTS else [short(one) for one in plain["who"]],
        "why": why if kind == DENIAL or not why else f"{SHOWN_MASK} ({len(why)} characters)",
        "evidence": evidence,
    }


def short(name: str) -> str:
    """A person's name or key: enough to tell a few apart, too little to know one. Of an `index:handle` the prefix is open."""
    if name in OPEN_NAMES:
        return name
    head, mark, rest = name.rpartition("/")
    if mark:
        return f"{head}/{rest[:1]}…"
    kind, mark, rest = name.partition(":")
    return f"{kind}:{rest[:4]}…" if mark and kind == "sha256" else f"{name[:1]}…"


def network(address: str) -> str:
    """The network of an address; of what is none, nothing."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return SHOWN_MASK
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    one = mapped or found
    return str(ipaddress.ip_network((one, NET_BITS[one.version]), strict=False))


def about(plain: Mapping[str, Any], person: str) -> bool:
    """Is this exact word among who acted in a record with its words in place, or where they called from?"""
    return person in plain["who"] or (bool(person) and person == plain["evidence"].get("client"))


def may_go(line: bytes | str, now_ms: int, kept_days: int = KEPT_DAYS) -> bool:
    """Is a record older than the limit? One that states no time is kept; `now_ms` is the newest record's time, in Unix ms."""
    at_ms = int(json.loads(line)["at_ms"])
    return bool(at_ms) and at_ms < now_ms - max(kept_days, KEPT_DAYS) * DAY_MS


def dropped(first: int, last: int, chain: str, kept_days: int) -> tuple[str, Sequence[str], str, dict[str, Any]]:
    """What, who, why and evidence of the record that says which records went. `chain`: after the last of them, hex."""
    said = {"first": first, "last": last, "chain": chain, "kept_days": kept_days}
    return f"records {first} to {last} are dropped", ("zaibei",), f"older than {kept_days} days", said
