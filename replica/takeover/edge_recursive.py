"""Publication adapter for recursive nodes: a forced HS_SITE entry and a cache flush over their HTTP control API, then a look.

Calls (JSON): `POST /control/hs-site` {prefix, sites (hex), serial, act}, `DELETE /control/hs-site` {prefix, serial, act},
`POST /control/flush` {prefix}, `GET /control/state?prefix=P` -> {"forced": {serial, sites} or null, "serial": highest seen}.
409 means a higher serial stands there. What counts as confirmed is what the node then says it holds, not that a call succeeded.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from replica.model.errors import Code, ZaibeiError
from replica.takeover.publish import Confirmation, Publication

CALL_S_MAX = 2.0
ANSWER_OCTETS_MAX = 1024 * 1024
AT_ONCE_MAX = 8  # publications under way at one node; a node that does not answer holds up nothing but its own


@dataclass(frozen=True, slots=True)
class RecursiveConfig:
    """One recursive node's control API.

    Args:
        name: for status and metrics.
        url: `http://127.0.0.1:8053` or `https://…`, no path.
        flush: also flush what the node has cached; without it a forced entry takes effect when the cached one ends.
        token_file: bearer token, one line; read at every call, so that it can be changed without a restart.
        ca_file: trusted certificates for https; None: the system's.
    """

    name: str
    url: str
    flush: bool = True
    token_file: Path | None = None
    ca_file: Path | None = None
    call_s_max: float = CALL_S_MAX


class RecursivePublisher:
    """Publishes at one recursive node. Idempotent: the same serial may be sent any number of times."""

    def __init__(self, config: RecursiveConfig) -> None:
        """Raises ZaibeiError(INVALID_CONFIG) when the URL is none."""
        parts = urlsplit(config.url)
        try:
            numbered = parts.port is None or parts.port > 0
        except ValueError:
            numbered = False
        known = parts.scheme in ("http", "https") and parts.hostname and numbered
        if not known or parts.path.strip("/") or parts.query:
            raise ZaibeiError(Code.INVALID_CONFIG, f"{config.url!r} is not the address of a control API: http(s)://host:port")
        self._config, self._parts = config, parts
        self._threads = ThreadPoolExecutor(AT_ONCE_MAX, thread_name_prefix=f"recursive {config.name}")

    @property
    def name(self) -> str:
        return self._config.name

    async def publish(self, publication: Publication) -> Confirmation:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._publish, publication)

    def _publish(self, publication: Publication) -> Confirmation:
        try:
            connection = self._connect()
        except OSError as exc:  # ssl.SSLError is one
            text = f"the trusted certificates of {self.name} cannot be read: {exc}"
            raise ZaibeiError(Code.INVALID_CONFIG, text, retry=True) from exc
        try:
            body: dict[str, object] = {"prefix": publication.prefix, "serial": publication.serial, "act": publication.act}
            if not publication.withdrawn:
                body["sites"] = [site.hex() for site in publication.sites]
            self._call(connection, "DELETE" if publication.withdrawn else "POST", "/control/hs-site", body)
            if self._config.flush:
                self._call(connection, "POST", "/control/flush", {"prefix": publication.prefix})
            state = self._call(connection, "GET", f"/control/state?prefix={quote(publication.prefix, safe='')}", None)
            return self._judge(publication, state)
        finally:
            connection.close()

    @staticmethod
    def _judge(publication: Publication, state: dict[str, object]) -> Confirmation:
        forced = state.get("forced")
        if publication.withdrawn:
            return Confirmation(forced is None, "no forced entry" if forced is None else "a forced entry still stands")
        if not isinstance(forced, dict):
            return Confirmation(False, "the node holds no forced entry")
        stands = forced.get("serial") == publication.serial and forced.get("sites") == [site.hex() for site in publication.sites]
        return Confirmation(stands, f"forced, serial {forced.get('serial')}" + ("" if stands else ", not ours"))

    def _connect(self) -> http.client.HTTPConnection:
        host, limit = self._parts.hostname or "", self._config.call_s_max
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, self._parts.port, timeout=limit)
        context = ssl.create_default_context(cafile=self._config.ca_file)
        return http.client.HTTPSConnection(host, self._parts.port, timeout=limit, context=context)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._config.token_file is not None:
            try:
                token = self._config.token_file.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as exc:
                raise ZaibeiError(Code.INVALID_CONFIG, f"cannot read the token of {self.name}: {exc}", retry=True) from exc
            if not token.isprintable():
                raise ZaibeiError(Code.INVALID_CONFIG, f"the token of {self.name} is not one line of text", retry=True)
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _call(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, object] | None
    ) -> dict[str, object]:
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers())
            answer = connection.getresponse()
            octets = answer.read(ANSWER_OCTETS_MAX)
        except (OSError, http.client.HTTPException, UnicodeError) as exc:  # the last: its host is no name
            raise ZaibeiError(Code.UNREACHABLE, f"{self.name} {self._config.url}: {exc}", definite=False, retry=True) from exc
        if answer.status == 409:
            raise ZaibeiError(Code.CONFLICT, f"{self.name} holds a higher serial: {octets[:200].decode(errors='replace')}")
        if answer.status in (401, 403):
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{self.name} refuses our token", retry=True)
        if answer.status != 200:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.name} answers {answer.status} to {method} {path}", retry=True)
        try:
            found = json.loads(octets or b"{}")
        except (ValueError, RecursionError) as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.name} answers no JSON to {path}", retry=True) from exc
        return found if isinstance(found, dict) else {}
