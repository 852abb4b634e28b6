"""The HTTP control API of the stand-in recursive node: forced entries, flush, state. Pure but for the clock given."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from chaos.standin.edge_http import Request
from chaos.standin.forced import PrefixTable
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import handle_prefix_key

SITES_MAX = 16


class Control:
    """Calls under /control/.

    Args:
        token: when not empty, `Authorization: Bearer TOKEN` is required.
        now_s: the clock of the table.
    """

    def __init__(self, table: PrefixTable, now_s: Callable[[], float], token: str = "") -> None:
        self._table, self._now_s, self._token = table, now_s, token

    async def __call__(self, request: Request) -> tuple[int, bytes]:
        given = request.headers.get("authorization", "")
        if self._token and not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return 401, _json({"error": "a bearer token is needed"})
        try:
            found = self._call(request)
        except ZaibeiError as exc:
            return 409 if exc.code is Code.CONFLICT else 400, _json({"error": exc.trouble.message})
        return (404, _json({"error": "no such call"})) if found is None else (200, _json(found))

    def _call(self, request: Request) -> dict[str, Any] | None:
        match request.method, request.path:
            case "POST", "/control/hs-site":
                fields = _fields(request)
                self._table.force(_prefix(fields), _sites(fields), _serial(fields), str(fields.get("act", "")))
                return self._state(_prefix(fields))
            case "DELETE", "/control/hs-site":
                fields = _fields(request)
                self._table.remove(_prefix(fields), _serial(fields))
                return self._state(_prefix(fields))
            case "POST", "/control/flush":
                fields = _fields(request)
                return {"flushed": self._table.flush(_prefix(fields) if "prefix" in fields else None)}
            case "GET", "/control/state":
                wanted = request.query.get("prefix")
                return self._state(wanted[0]) if wanted else self._all()
        return None

    def _state(self, prefix: str) -> dict[str, Any]:
        entry = self._table.forced.get(prefix.upper())
        forced = (
            None if entry is None else {"serial": entry.serial, "sites": [site.hex() for site in entry.sites], "act": entry.act}
        )
        left_s = self._table.kept(self._now_s()).get(prefix.upper())
        return {"prefix": prefix, "forced": forced, "serial": self._table.serials.get(prefix.upper(), 0), "kept_s": left_s}

    def _all(self) -> dict[str, Any]:
        return {
            "forced": {prefix: {"serial": entry.serial, "act": entry.act} for prefix, entry in self._table.forced.items()},
            "serials": self._table.serials,
            "kept_s": self._table.kept(self._now_s()),
        }


def _json(thing: object) -> bytes:
    return json.dumps(thing).encode()


def _bad(why: str) -> ZaibeiError:
    return ZaibeiError(Code.MALFORMED, why)


def _fields(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(request.body or b"{}")
    except (ValueError, RecursionError) as exc:
        raise _bad(f"not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise _bad("an object is needed")
    return found


def _prefix(fields: dict[str, Any]) -> str:
    prefix = fields.get("prefix")
    if not isinstance(prefix, str):
        raise _bad("prefix is a text")
    handle_prefix_key(prefix.encode())
    return prefix


def _serial(fields: dict[str, Any]) -> int:
    serial = fields.get("serial")
    if not isinstance(serial, int) or isinstance(serial, bool) or serial < 0:
        raise _bad("serial is a number from 0")
    return serial


def _sites(fields: dict[str, Any]) -> tuple[bytes, ...]:
    sites = fields.get("sites")
    try:
        if not isinstance(sites, list) or not 0 < len(sites) <= SITES_MAX:
            raise ValueError
        return tuple(bytes.fromhex(site) for site in sites)
    except (TypeError, ValueError):
        raise _bad(f"sites are 1 to {SITES_MAX} texts of hexadecimal HS_SITE data") from None
