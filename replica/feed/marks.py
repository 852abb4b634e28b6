"""The feed's named state as committed entries, and the comparison of digests in order. Parts of a replica session, pure."""

from __future__ import annotations

from replica.feed.desk import Desk
from replica.model.digest import ContentDigest
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.outcome import Outcome
from replica.model.position import Position
from replica.model.signing import certificate_octets, verify
from replica.model.states import FEED_MOVES, FeedState
from replica.v1 import entry_pb2, position_pb2

REASON_CHARACTERS_MAX = 1_000
Wanted = tuple[FeedState, str, str, Position | None]


class Marks:
    """The newest wanted mark, proposed until it is committed; one at a time."""

    __slots__ = ("_desk", "_flying", "wanted")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._flying = False
        self.wanted: Wanted | None = None

    def want(self, feed: FeedState, code: Code | str, reason: str, theirs: Position | None) -> None:
        """From now on the feed's state is to be this one."""
        self.wanted = (feed, str(code), reason[:REASON_CHARACTERS_MAX], theirs)
        self.propose()

    def propose(self) -> None:
        """Propose what is wanted, again after our own back-pressure refused it."""
        if self._flying or self.wanted is None:
            return
        wanted = self.wanted
        feed, code, reason, theirs = wanted
        state = self._desk.state
        if (state.feed, state.feed_code) == (feed, code) or (feed != state.feed and feed not in FEED_MOVES[state.feed]):
            self.wanted = None
            return
        self._flying = True

        def then(outcome: Outcome | Trouble) -> None:
            self._flying = False
            if not isinstance(outcome, Trouble) and self.wanted == wanted:
                self.wanted = None

        self._desk.mark(feed, code, reason, theirs, then)


class Checks:
    """Certificates of the source as entries in order: the store compares when apply reaches exactly their position."""

    __slots__ = ("_desk", "_flying", "_marks")

    def __init__(self, desk: Desk, marks: Marks) -> None:
        self._desk, self._marks = desk, marks
        self._flying = False

    def certificate(self, certificate: position_pb2.Certificate, live: Position | None) -> None:
        """Propose a certificate of exactly the live tail; another one cannot be compared and says nothing.

        Raises:
            ZaibeiError(NOT_AUTHORISED, MALFORMED): the stream ends.
        """
        digest, setup = ContentDigest.from_wire(certificate.digest), self._desk.setup
        octets = certificate_octets(certificate.source, certificate.shard, digest, certificate.stated_ms)
        if certificate.source != setup.source or not verify(setup.source_key, octets, certificate.signature):
            raise ZaibeiError(Code.NOT_AUTHORISED, "a digest certificate that the source's key did not sign")
        state = self._desk.state
        if digest.position == live and state.verified and state.certificate == digest:
            self._desk.age.compared()  # once more: nothing has to be committed
            return
        if digest.position != live or self._flying:
            return
        self._flying = True
        check = entry_pb2.Entry(check=entry_pb2.CheckResult(certificate=certificate))
        self._desk.propose(check, lambda outcome: self._checked(digest, outcome))

    def _checked(self, digest: ContentDigest, outcome: Outcome | Trouble) -> None:
        self._flying = False
        if isinstance(outcome, Trouble):
            return
        feed = self._desk.state.feed
        if outcome.detail == "equal":
            self._desk.age.compared()
        if outcome.detail == "different":
            text = f"at {digest.position.short()} our content differs from the source's; the source publishes the difference"
            self._desk.alarm(Code.DIVERGED, text)
            if feed is FeedState.FLOWING:
                self._marks.want(FeedState.DIVERGED, Code.DIVERGED, text, digest.position)
        elif outcome.detail == "equal" and feed is FeedState.DIVERGED:
            self._marks.want(FeedState.FLOWING, "", "", None)
