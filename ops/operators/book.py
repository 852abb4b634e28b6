"""Plans that were looked at, who approved them, and what became of them; kept over a restart. A value; the file is edge_book's.

It gives no right: signatures are judged again when a plan is run, and carried in the committed entry itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ops.admin.values import Approval, HoldDone
from replica.model.errors import Code, ZaibeiError

PLANS_MAX = 256
FORMAT = 1

PLAN_AGAIN = "plan it again (zaibei takeover plan, hold plan, block plan), and sign that"


@dataclass(slots=True)
class Page:
    """One plan: what it is about, its approvals by operator, its end."""

    source: str
    hold: str
    decision: str
    approvals: dict[str, Approval] = field(default_factory=dict)
    done: HoldDone | None = None


@dataclass(slots=True)
class Book:
    """Pages by token, oldest first; the oldest leaves when there are more than PLANS_MAX."""

    format: int = FORMAT
    pages: dict[str, Page] = field(default_factory=dict)

    def page(self, token: str) -> Page:
        """Raises ZaibeiError(NOT_FOUND)."""
        page = self.pages.get(token)
        if page is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no plan {token[:32]!r} is known. Next: {PLAN_AGAIN}")
        return page

    def open(self, token: str, source: str, hold: str, decision: str) -> Page:
        """The page of a plan, new if it was not looked at before."""
        page = self.pages.setdefault(token, Page(source, hold, decision))
        while len(self.pages) > PLANS_MAX:
            del self.pages[next(iter(self.pages))]
        return page

    def dump(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def load(octets: bytes) -> Book:
        """Raises ZaibeiError(DAMAGED)."""
        try:
            book = msgspec.json.decode(octets, type=Book)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ZaibeiError(Code.DAMAGED, f"not a book of plans: {exc}") from exc
        if book.format != FORMAT:
            raise ZaibeiError(Code.DAMAGED, f"a book of plans in format {book.format}; we write {FORMAT}")
        return book
