"""Which response code of the Handle protocol tells a trouble of ours. Pure.

The standard client asks another site after a 2 and takes everything else as final, so 2 is said where another member may do it,
and where the outcome is not known. It may then meet its own change: a create that is told 101, an add that is told 201.
"""

from __future__ import annotations

from replica.model.errors import Code, Trouble
from replica.model.handle.codes import ResponseCode

TEXT_OCTETS_MAX = 500

_CODES = {
    Code.MALFORMED: ResponseCode.INVALID_VALUE,
    Code.NOT_OWNER: ResponseCode.SERVER_NOT_RESP,
    Code.NOT_AUTHORISED: ResponseCode.INSUFFICIENT_PERMISSIONS,
    Code.NOT_FOUND: ResponseCode.HANDLE_NOT_FOUND,
    Code.BUSY: ResponseCode.SERVER_TOO_BUSY,
    Code.CONFLICT: ResponseCode.SERVER_TOO_BUSY,  # others kept changing the same record
    Code.OVER_QUOTA: ResponseCode.REGISTER_COUNT_LIMIT,
    Code.REFUSED: ResponseCode.SERVER_BACKUP,
    Code.HELD: ResponseCode.SERVER_BACKUP,
    Code.FENCED: ResponseCode.SERVER_BACKUP,
}


def code_of(trouble: Trouble) -> ResponseCode:
    """The code of a trouble; 2 for all that another member may do, or that nobody knows."""
    if not trouble.definite:
        return ResponseCode.ERROR
    if trouble.code is Code.OVER_QUOTA and trouble.retry:
        return ResponseCode.SERVER_TOO_BUSY
    return _CODES.get(trouble.code, ResponseCode.ERROR)


def text_of(trouble: Trouble) -> bytes:
    """What a person reads behind the code."""
    said = "nothing was changed" if trouble.definite else "whether it was done is not known: look before you repeat it"
    return f"{trouble.message} ({said})".encode()[:TEXT_OCTETS_MAX].decode("utf-8", "ignore").encode()
