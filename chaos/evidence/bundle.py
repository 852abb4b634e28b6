"""What a drill leaves, as values: one type a kind of line. Format zaibei-evidence, version 1.

Moments are microseconds since the drill began, on one clock of the machine that watched from outside. A text that came from
elsewhere is cut to its limit and never interpreted.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from replica.model.errors import Code, ZaibeiError

FORMAT, VERSION = "zaibei-evidence", 1
SUITE = "std"  # Ed25519 over SHA-256
SIGNATURE, DIGEST = "Ed25519", "SHA-256"
FIRST = "0" * 64  # `previous` of the first bundle of a folder
TEXT_MAX = 2_000  # characters of one text
LINES_MAX = 20_000
BUNDLE_OCTETS_MAX = 8 * 1024 * 1024

Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Count = Annotated[int, Meta(ge=0)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Verdict(StrEnum):
    """The worst finding counts: fail, then inconclusive, then pass; nothing found is inconclusive."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class What(StrEnum):
    """What a moment is."""

    FAULT = "fault"  # it was broken, as told by whoever broke it
    DETECT = "detect"
    DECIDE = "decide"
    FENCE = "fence"
    PUBLISH = "publish"
    FIRST_ANSWER = "first answer"  # first right answer an outside client got after the fault
    STEADY = "steady"  # start of the first 5 s in which 99.9 % were right
    HEAL = "heal"
    RETURN = "return"
    NOTE = "note"


class Header(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="header"):
    """`number`: place in the chain, from 1; `previous`: SHA-256 over all octets of the bundle before; `key_id`: of the signer."""

    number: Annotated[int, Meta(ge=1)]
    previous: Hash
    key_id: Hash
    format: str = FORMAT
    version: int = VERSION
    suite: str = SUITE
    signature_algorithm: str = SIGNATURE
    digest_algorithm: str = DIGEST


class Drill(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="drill"):
    """Which drill, when, where, and what was said before it began. `planted`: the bug of a red run, "" in others."""

    scenario: Text
    number: Count
    story: Text
    seed: Count
    layer: Text
    planted: Text
    began_ms: Count  # Unix
    took_ms: Count
    machine: Text
    by: Text
    touches: Text
    clients_notice: Text
    how_to_stop: Text
    minutes_max: Count


class Made(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hash"):
    """What ran. `of`: "build" or "config"; `name`: of the tree or file; `value`: digest of its octets."""

    of: Text
    name: Text
    value: Hash
    algorithm: str = DIGEST


class Broken(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="fault"):
    """One line of the fault log. `state`: active, healed or stuck."""

    at_us: Count
    fault: Text
    state: Text
    detail: Text = ""


class Moment(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="moment"):
    """One moment of the timeline; `about`: the source or member, "" for the whole."""

    at_us: Count
    what: What
    about: Text
    text: Text


class Look(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lookup"):
    """One lookup of an outside client, for the picture; all of them are counted in `lane` lines."""

    at_us: Count
    took_us: Count
    lane: Text
    about: Text
    right: bool


class LaneCount(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lane"):
    """All lookups of one way of asking."""

    lane: Text
    lookups: Count
    failed: Count
    wrong: Count


class Figure(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="figure"):
    """A measured number; None: not measured. `most`: its budget, None: none."""

    name: Text
    unit: Text
    value: int | None
    most: int | None
    meaning: Text


class Rpo(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="rpo"):
    """Both, never mixed. receipts: promised and not honoured; source_*: acknowledged by the source to its own clients and not
    served by us when all was steady. None: not measured."""

    receipts: int | None
    source_records: int | None
    source_ms: int | None


class Digest(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="digest"):
    """Content at one place. `when`: "before" or "after" the fault."""

    when: Text
    source: Text
    place: Text
    position: Text
    records: Count
    total: Text


class Finding(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="finding"):
    """One check."""

    check: Text
    verdict: Verdict
    why: Text


class RedProof(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="red"):
    """The planted bug that must turn this scenario red. verdict: what its run said, None: it was not run before this bundle;
    bundle: SHA-256 of that run's own bundle, "" when there is none."""

    planted: Text
    verdict: Verdict | None
    bundle: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
    why: Text


class Said(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="verdict"):
    """The verdict of the whole."""

    verdict: Verdict


class Seal(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="seal"):
    """The last line. `lines`: before it; `digest`: over all their octets; `signature`: over DOMAIN and that digest."""

    lines: Count
    digest: Hash
    key_id: Hash
    signature: Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]


Part = Drill | Made | Broken | Moment | Look | LaneCount | Figure | Rpo | Digest | Finding | RedProof | Said
ONCE: tuple[type[Struct], ...] = (Drill, Rpo, RedProof, Said)


class Bundle(Struct, frozen=True):
    """A bundle as it was read: header, parts in their order, and the SHA-256 over all its octets."""

    header: Header
    parts: tuple[Part, ...]
    sha256: str

    @property
    def drill(self) -> Drill:
        return next(one for one in self.parts if isinstance(one, Drill))

    @property
    def verdict(self) -> Verdict:
        return next(one.verdict for one in self.parts if isinstance(one, Said))


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of all findings together."""
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS if verdicts else Verdict.INCONCLUSIVE


def check(parts: Sequence[Part]) -> None:
    """Raises ZaibeiError(MALFORMED): not a whole drill, or its verdict is not what its own lines say."""
    if len(parts) + 2 > LINES_MAX:
        raise ZaibeiError(Code.MALFORMED, f"{len(parts)} lines, at most {LINES_MAX - 2} and header and seal")
    for kind in ONCE:
        if (count := sum(isinstance(one, kind) for one in parts)) != 1:
            raise ZaibeiError(Code.MALFORMED, f"{count} lines of kind {kind.__struct_config__.tag}, exactly one belongs there")
    said = next(one.verdict for one in parts if isinstance(one, Said))
    found = worst([one.verdict for one in parts if isinstance(one, Finding)])
    if said is not found:
        raise ZaibeiError(Code.MALFORMED, f"it says {said} and its findings say {found}")
    rpo = next(one for one in parts if isinstance(one, Rpo))
    if said is Verdict.PASS and rpo.receipts != 0:
        raise ZaibeiError(Code.MALFORMED, f"it says pass with RPO_receipts {rpo.receipts}: only 0 passes")


def text(value: object) -> str:
    """A text from elsewhere, cut to its limit; what no encoding can hold becomes a question mark."""
    return str(value).encode("utf-8", "replace").decode("utf-8")[:TEXT_MAX]
