"""What must hold of another member's words before anything of them is believed. Pure.

Order: its certificate says who it is; its Hello must say the same and name our cluster; only then is anything else read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.message import DecodeError

from replica.consensus.link_port import ID_OCTETS, LINK_OCTETS_MAX, Reason, Refused
from replica.consensus.wire import NUMBER_MAX, fault_of
from replica.v1 import peer_pb2

HELLO_FORMAT = 1
WORD_CHARS_MAX = 256  # a name, a zone, a version, an address
PLACES_MAX = 4_096
ADDRESSES_MAX = 64  # of one kind, of one member
TABLE_ROWS_MAX = 100_000


def read_link_message(octets: bytes) -> peer_pb2.LinkMessage:
    """Raises Refused(OVERSIZED, MALFORMED): nothing in it can be used."""
    if len(octets) > LINK_OCTETS_MAX:
        raise Refused(Reason.OVERSIZED, f"a message of {len(octets)} octets, at most {LINK_OCTETS_MAX}")
    try:
        message = peer_pb2.LinkMessage.FromString(octets)
    except DecodeError:
        raise Refused(Reason.MALFORMED, "octets that are no LinkMessage") from None
    if message.WhichOneof("body") is None:
        raise Refused(Reason.MALFORMED, "a message without content: is the sender's program newer?")
    return message


def check_messages(messages: Iterable[peer_pb2.GroupMessage]) -> None:
    """Raises Refused(MALFORMED): one is not sound; none of them may be handed up."""
    for message in messages:
        if fault := fault_of(message):
            raise Refused(Reason.MALFORMED, f"group {message.group}: {fault}")


def check_table(rows: Sequence[object]) -> None:
    """Raises Refused(OVERSIZED)."""
    if len(rows) > TABLE_ROWS_MAX:
        raise Refused(Reason.OVERSIZED, f"a table of {len(rows)} rows, at most {TABLE_ROWS_MAX}")


def check_hello(hello: peer_pb2.Hello, own: peer_pb2.Hello, certified: tuple[int, str], journals: Mapping[int, bytes]) -> None:
    """Is this the member that its certificate names, of our cluster, with the journal we know?

    Args:
        own: our own Hello.
        certified: number and name by certificate.
        journals: identity of each known member's journal, our own included.

    Raises:
        Refused: it is not, with the reason for a person.
    """
    if hello.format != HELLO_FORMAT:
        raise Refused(Reason.FORMAT, f"a Hello of format {hello.format}, we know {HELLO_FORMAT}: use programs of one release")
    if hello.cluster != own.cluster or len(hello.cluster) != ID_OCTETS:
        raise Refused(Reason.CLUSTER, f"it is of cluster {_hex(hello.cluster)}, we of {_hex(own.cluster)}: one address is wrong")
    if hello.lineage != own.lineage or len(hello.lineage) != ID_OCTETS:
        raise Refused(Reason.LINEAGE, f"it is of lineage {_hex(hello.lineage)}, we of {_hex(own.lineage)}: one is no member here")
    number, name = certified
    if hello.member == own.member or number == own.member:
        raise Refused(Reason.OURSELVES, _text_of_ourselves(hello, own))
    if (hello.member, hello.name) != certified:
        text = f"it calls itself {hello.member} ({_word(hello.name)}), its certificate is that of {number} ({name})"
        raise Refused(Reason.MEMBER, text)
    _check_journal(hello, journals)
    _check_sizes(hello)


def _text_of_ourselves(hello: peer_pb2.Hello, own: peer_pb2.Hello) -> str:
    if hello.journal == own.journal:
        return (
            f"this is member {own.member} ({own.name}) itself or a copy of its folder that runs: correct the address or stop it"
        )
    return f"another process has our own number {own.member}: two members were given one number; enrol that one anew"


def _check_journal(hello: peer_pb2.Hello, journals: Mapping[int, bytes]) -> None:
    if len(hello.journal) != ID_OCTETS or not 1 <= hello.boot <= NUMBER_MAX:
        raise Refused(Reason.MALFORMED, "a Hello without a journal")
    known = journals.get(hello.member)
    if known is not None and known != hello.journal:
        text = (
            f"member {hello.member} ({hello.name}) has journal {_hex(hello.journal)}, before it was {_hex(known)}: two members "
            f"were given one number, or its data folder was lost. Replace it: zaibei cluster replace {hello.name}"
        )
        raise Refused(Reason.JOURNAL, text)
    twin = next((member for member, journal in journals.items() if journal == hello.journal and member != hello.member), None)
    if twin is not None:
        raise Refused(Reason.JOURNAL, f"the journal of {hello.name} is member {twin}'s: a data folder must not be copied")


def _check_sizes(hello: peer_pb2.Hello) -> None:
    words = [hello.name, hello.zone, hello.version]
    for place in hello.places:
        if max(len(place.links), len(place.feeds), len(place.answers)) > ADDRESSES_MAX:
            raise Refused(Reason.OVERSIZED, "a Hello with too many addresses of one member")
        words += [place.name, place.zone, *place.links, *place.feeds, *place.answers]
    if len(hello.places) > PLACES_MAX or max(map(len, words)) > WORD_CHARS_MAX:
        raise Refused(Reason.OVERSIZED, "a Hello with too many members or words that are too long")
    groups = [memory.group for memory in hello.groups]
    if 0 in groups or len(set(groups)) != len(groups):
        raise Refused(Reason.MALFORMED, "a Hello that names a group twice, or none")


def check_again(hello: peer_pb2.Hello, first: peer_pb2.Hello) -> None:
    """A later Hello on one call is of the same run of the same member. Raises Refused(UNEXPECTED)."""
    if (hello.member, hello.journal, hello.boot) != (first.member, first.journal, first.boot):
        raise Refused(Reason.UNEXPECTED, f"the Hello of member {first.member} became another one's within a call")


def _hex(octets: bytes) -> str:
    return octets[:ID_OCTETS].hex() or "(none)"


def _word(text: str) -> str:
    return text[:WORD_CHARS_MAX]
