"""Every rule the kit knows, in the order in which they are reported. Identifiers are a stable contract."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """What can be looked at together; `--only` names groups."""

    TLS = "tls"
    DESCRIBE = "describe"
    PROVE = "prove"
    SNAPSHOT = "snapshot"
    HISTORY = "history"
    CREDIT = "credit"
    LIVE = "live"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Rule:
    """`ident` never changes; `title` is what a person reads; `clause` is where the rule stands."""

    ident: str
    group: Group
    title: str
    clause: str


RULES: tuple[Rule, ...] = (
    Rule("tls.required", Group.TLS, "no answer without TLS", "DESIGN 3.13"),
    Rule("tls.client", Group.TLS, "no answer to a caller without a pinned certificate", "DESIGN 3.13"),
    Rule("ipv6", Group.TLS, "the same source on every address family of its name", "DESIGN 3"),
    Rule("describe.sane", Group.DESCRIBE, "the description is complete and names the certificate's source", "replica.v1"),
    Rule("prove.true", Group.PROVE, "proves positions of its own history", "SEMANTICS 3.3"),
    Rule("prove.forged", Group.PROVE, "says `different` to a forged chain", "SEMANTICS 3.3"),
    Rule("prove.foreign", Group.PROVE, "proves no position of another lineage or of the future", "SEMANTICS 1.2"),
    Rule("snapshot.order", Group.SNAPSHOT, "keys ascend over the whole snapshot, all puts", "replica.v1"),
    Rule("snapshot.parts", Group.SNAPSHOT, "parts are numbered without a gap and within 768 KiB", "replica.v1"),
    Rule("snapshot.count", Group.SNAPSHOT, "the stated count is the number of records", "SEMANTICS 10"),
    Rule("snapshot.digest", Group.SNAPSHOT, "the stated digest is that of the records, at the header's position", "SEMANTICS 10"),
    Rule("snapshot.hash", Group.SNAPSHOT, "the ordered hash is that of the parts", "replica.v1"),
    Rule("snapshot.signature", Group.SNAPSHOT, "the end is signed by the certificate's signing key", "DESIGN 3.14"),
    Rule("snapshot.resume", Group.SNAPSHOT, "a resumed snapshot gives the same octets, or says it is a new one", "replica.v1"),
    Rule("records.canonical", Group.SNAPSHOT, "keys and values are canonical: format, order by index, limits", "SEMANTICS 10"),
    Rule("keys.owned", Group.SNAPSHOT, "every key lies below the source's prefixes", "DESIGN 3.13"),
    Rule("batch.header", Group.HISTORY, "batches state format, suite, source, count and the hash of their columns", "replica.v1"),
    Rule("batch.limits", Group.HISTORY, "at most 1,000 changes and 768 KiB", "SEMANTICS 1.1"),
    Rule("chain.follows", Group.HISTORY, "each chain follows from the batch's content", "SEMANTICS 1.1"),
    Rule("chain.gapless", Group.HISTORY, "each batch begins where the one before ended", "DESIGN 3.2"),
    Rule("deletes.exact", Group.HISTORY, "a delete names a record that is there", "SEMANTICS 12"),
    Rule("resume.repeat", Group.HISTORY, "the same position gives the same octets again", "SEMANTICS 1.1"),
    Rule("resume.boundary", Group.HISTORY, "every boundary can be resumed from, with the same octets", "SEMANTICS 1.1"),
    Rule("credit.zero", Group.CREDIT, "nothing is sent without credit", "replica.v1"),
    Rule("credit.total", Group.CREDIT, "credits are totals: what is granted is sent, a repeated one does nothing", "replica.v1"),
    Rule("beats.nonce", Group.LIVE, "beats echo the newest nonce", "SEMANTICS 4"),
    Rule("beats.interval", Group.LIVE, "beats come at the stated interval", "SEMANTICS 4"),
    Rule("certificate.interval", Group.LIVE, "a certificate at least every 5 s", "SEMANTICS 10"),
    Rule("certificate.signature", Group.LIVE, "certificates are signed by the certificate's signing key", "DESIGN 3.14"),
    Rule("certificate.equal", Group.LIVE, "certificates equal our own sum over snapshot and changes", "SEMANTICS 10"),
    Rule("head.forward", Group.LIVE, "the head never goes backwards", "SEMANTICS 1.2"),
    Rule("refuse.lineage", Group.REFUSE, "nothing is sent to a position of an unknown lineage", "SEMANTICS 1.2"),
    Rule("refuse.epoch", Group.REFUSE, "nothing is sent to a position of an epoch that was not granted", "SEMANTICS 1.2"),
)
BY_IDENT = {rule.ident: rule for rule in RULES}
