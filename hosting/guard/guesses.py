"""Guessed keys: how many wrong proofs a client may give in a minute. Pure; time is an argument.

| a client is | until | then |
| --- | --- | --- |
| heard | `wrong_per_minute` of its proofs in one minute were wrong | no proof of it is judged for the rest of that minute |

A client is a network, as in guard.py. Counted by client and never by key: whoever guesses must not shut out the key's owner. What
comes in datagrams and shows in no other way that its sender reads our answers is counted apart, for its address may be forged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hosting.guard.clients import client_of
from hosting.guard.guard import no_notes
from hosting.guard.windows import Window

WRONG_PER_MINUTE: Final = 20
CLIENTS_MAX: Final = 65_536
MINUTE_S: Final = 60
FORGEABLE: Final = b"forged: "  # longer than any client: never the beginning of one
WRONG_PROOF: Final = "wrong_proof"


class Guesses:
    """See the module.

    Args:
        wrong_per_minute: of one client; 0: not limited.
        note: told (what, client, how many) of each wrong proof.
    """

    def __init__(self, wrong_per_minute: int = WRONG_PER_MINUTE, note: Callable[[str, bytes, int], None] = no_notes) -> None:
        self.note = note
        self.wrong_count = 0
        self.unheard = 0
        self._window = Window(wrong_per_minute, CLIENTS_MAX)

    def hears(self, host: str, now_s: int, *, forgeable: bool = False) -> bool:
        """Is a proof of this address judged now?"""
        if self._window.has_room(FORGEABLE * forgeable + client_of(host), now_s // MINUTE_S):
            return True
        self.unheard += 1
        return False

    def wrong(self, host: str, now_s: int, *, forgeable: bool = False) -> None:
        """A proof that came from this address was wrong."""
        client = client_of(host)
        self.wrong_count += 1
        self._window.add(FORGEABLE * forgeable + client, 1, now_s // MINUTE_S)
        self.note(WRONG_PROOF, client, 1)
