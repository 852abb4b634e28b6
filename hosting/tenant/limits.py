"""Limits of registration, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.batch import BATCH_CHANGES_MAX, BATCH_COLUMNS_OCTETS_MAX

CHANGE_FRAME_OCTETS = 13  # of a change in a batch beside key and value: two fields' tags and lengths, one op
REQUEST_OCTETS_MAX = 4 * 1024 * 1024
RESPONSE_OCTETS_MAX = 16 * 1024 * 1024
IDENTIFIERS_MAX = 1_000  # of one Get
CHANGES_MAX = 1_000  # of one PutMany message
TURN_S_MAX = 0.001  # of one tenant's streams in one turn of the event loop; asked before each lot
LOT_MAX = 64  # changes that are judged together: about as much as a turn
ALIKE_MAX = 100  # changes of one message that are refused for one look at the rate
HELD_MAX = 256  # answers of one tenant held back at once; more are told without delay
REGISTRATIONS_MAX = 512  # Handle and JSON messages under way; more are dropped, the client asks again; shared as places.py says
PAGE_RECORDS_MAX = 1_000
PAGE_OCTETS_MAX = 4 * 1024 * 1024  # of records in one answer; a single record always fits
SCAN_RECORDS = 16  # read at once for a page: with the largest records still 4 MiB
STREAM_CHANGES_MAX = 8_000  # of one PutMany stream without an outcome; beyond it no more is read
OUTCOME_S_MAX = 20.0  # then a change that was not proposed is taken back, and one that was is UNKNOWN
BARRIER_S_MAX = 5.0
REFERENCES_MAX = 64  # of one value
LEADERS_MAX = 8  # addresses of one refusal


@dataclass(frozen=True, slots=True)
class DeskLimits:
    """Of one source's desk.

    Args:
        waiting_max, waiting_octets_max: changes taken and not proposed; beyond them BUSY.
        behind_max: changes of one key that wait for the one before them; beyond it BUSY.
        batch_changes_max, batch_octets_max: of one entry (SEMANTICS 1.1).
        uncommitted_max: entries proposed and not yet on a majority's disks; only full ones follow the first.
        in_flight_max: entries proposed and not yet applied.
        tries_max: how often a change is proposed whose entry had no effect, before BUSY.
    """

    waiting_max: int = 16_384
    waiting_octets_max: int = 64 * 1024 * 1024
    behind_max: int = 256
    batch_changes_max: int = BATCH_CHANGES_MAX
    batch_octets_max: int = BATCH_COLUMNS_OCTETS_MAX
    uncommitted_max: int = 8
    in_flight_max: int = 16
    tries_max: int = 5
