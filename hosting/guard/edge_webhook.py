"""Sends security events to a webhook: one HTTPS POST of one JSON document each, signed with a shared secret.

    POST PATH, Content-Type: application/json
    Zaibei-Event: the event's id (the same at every try, so that the receiver can tell a repetition)
    Zaibei-Signature: sha256=HMAC-SHA256 of the body with the secret, hex

The secret is read from its file at every call, so that it can be changed without a restart. 2xx counts as taken; 408, 429 and
5xx, and a connection that failed, are worth another try; everything else is not.
"""

from __future__ import annotations

import asyncio
import hmac
import http.client
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hosting.guard.events import SecurityEvent, as_json
from replica.model.errors import Code, ZaibeiError

CALL_S_MAX: Final = 5.0  # of one socket operation
ANSWER_OCTETS_MAX: Final = 64 * 1024
SECRET_OCTETS_MIN: Final = 16
SECRET_OCTETS_MAX: Final = 4_096
WORTH_ANOTHER_TRY: Final = frozenset({408, 429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class WebhookPlace:
    """Where events go. `secret_file`: shared secret, one line. `ca_file`: trusted certificates; None: the system's."""

    url: str
    secret_file: Path
    ca_file: Path | None = None


def usable(place: WebhookPlace) -> SplitResult:
    """The parts of its address. Raises ZaibeiError(INVALID_CONFIG): no HTTPS address. Plain HTTP is for loopback alone."""
    wrong = ZaibeiError(Code.INVALID_CONFIG, f"{place.url[:80]!r} is no webhook: write https://HOST/PATH")
    try:
        parts = urlsplit(place.url)
        numbered = parts.port is None or parts.port > 0
    except ValueError:
        raise wrong from None
    plain = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not (parts.scheme == "https" or plain) or not parts.hostname or not numbered:
        raise wrong
    return parts


class Webhook:
    """One receiver; one call at a time, in a thread of its own."""

    def __init__(self, place: WebhookPlace) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): as `usable`."""
        self._place, self._parts = place, usable(place)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhook")

    @property
    def name(self) -> str:
        return f"webhook {self._parts.hostname}"

    async def send(self, event: SecurityEvent) -> None:
        """Raises ZaibeiError: UNREACHABLE (a retry may help), REFUSED, INVALID_CONFIG (the secret cannot be read)."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._send, event.ident, as_json(event))

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, ident: str, body: bytes) -> None:
        secret = self._secret()
        headers = {
            "Content-Type": "application/json",
            "Zaibei-Event": ident,
            "Zaibei-Signature": f"sha256={hmac.new(secret, body, 'sha256').hexdigest()}",
        }
        path = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        try:
            connection = self._connect()
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                answer.read(ANSWER_OCTETS_MAX)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, UnicodeError) as exc:  # the last: no host's name, or no path
            raise ZaibeiError(Code.UNREACHABLE, f"{self.name}: {exc}", definite=False, retry=True) from exc
        if 200 <= answer.status < 300:
            return
        again = answer.status in WORTH_ANOTHER_TRY
        raise ZaibeiError(
            Code.UNREACHABLE if again else Code.REFUSED, f"{self.name} answers {answer.status}", definite=not again, retry=again
        )

    def _connect(self) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, self._parts.port, timeout=CALL_S_MAX)
        context = ssl.create_default_context(cafile=self._place.ca_file)
        return http.client.HTTPSConnection(host, self._parts.port, timeout=CALL_S_MAX, context=context)

    def _secret(self) -> bytes:
        try:
            with self._place.secret_file.open("rb") as file:
                secret = file.read(SECRET_OCTETS_MAX + 1).strip()
        except OSError as exc:
            raise ZaibeiError(Code.INVALID_CONFIG, f"cannot read the secret of {self.name}: {exc}", retry=True) from exc
        if not SECRET_OCTETS_MIN <= len(secret) <= SECRET_OCTETS_MAX:
            raise ZaibeiError(
                Code.INVALID_CONFIG,
                f"the secret of {self.name} has {len(secret)} octets: {SECRET_OCTETS_MIN} to {SECRET_OCTETS_MAX}",
                retry=True,
            )
        return secret
