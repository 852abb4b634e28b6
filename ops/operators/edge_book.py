"""The file of the book of plans: replaced whole, fsynced, mode 0600."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ops.operators.book import Book
from replica.model.errors import ZaibeiError

BOOK_FILE = "plans.json"
BOOK_OCTETS_MAX = 4 * 1024 * 1024

log = logging.getLogger("zaibei.operators")


class BookFile:
    """Loads and saves the book of one data folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / BOOK_FILE

    def load(self) -> Book:
        """The book; a new one when there is none. A damaged one is set aside: its approvals are asked for again."""
        try:
            with self.path.open("rb") as file:
                return Book.load(file.read(BOOK_OCTETS_MAX))
        except FileNotFoundError:
            return Book()
        except ZaibeiError as exc:
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            log.warning("book of plans set aside", extra={"fields": {"file": str(aside), "reason": exc.trouble.message}})
            return Book()

    def save(self, book: Book) -> None:
        """Raises OSError; then the old book stands."""
        new = self.path.with_suffix(".new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(book.dump())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
