"""The rules of `[security]`: a webhook has a secret, and both can be used. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hosting.guard.edge_webhook import SECRET_OCTETS_MAX, SECRET_OCTETS_MIN, WebhookPlace, usable
from ops.config.faults import Reading
from ops.config.read import WrongError
from ops.config.values import SecurityPart
from replica.model.errors import ZaibeiError

KEYS = ("syslog", "webhook", "webhook_secret_file", "webhook_ca_file")


def security_part(
    reading: Reading, table: Mapping[str, Any], folder: Path, read_file: Callable[[Path, bool], bytes]
) -> SecurityPart:
    """The checked section; faults go into `reading`. Arguments as in pki.py."""
    if len(table) < len(KEYS):
        return SecurityPart()  # a fault is already told
    url, secret, ca = table["webhook"], table["webhook_secret_file"], table["webhook_ca_file"]
    if not url:
        for key in ("webhook_secret_file", "webhook_ca_file"):
            if table[key]:
                reading.fault(f"security.{key}", "stands without a webhook", 'webhook = "https://soc.example/zaibei" beside it')
        return SecurityPart(table["syslog"])
    if not secret:
        reading.fault("security.webhook", "has no secret to sign with", 'webhook_secret_file = "webhook.secret" beside it')
        return SecurityPart(table["syslog"])
    place = WebhookPlace(url, folder / secret, folder / ca if ca else None)
    try:
        usable(place)
    except ZaibeiError as exc:
        reading.fault("security.webhook", exc.trouble.message, '"https://soc.example/zaibei"')
    for key, path, is_secret in (("webhook_secret_file", place.secret_file, True), ("webhook_ca_file", place.ca_file, False)):
        try:
            octets = read_file(path, is_secret) if path is not None else b""
        except WrongError as wrong:
            reading.fault(f"security.{key}", wrong.what, wrong.instead)
            continue
        if is_secret and not SECRET_OCTETS_MIN <= len(octets.strip()) <= SECRET_OCTETS_MAX:
            reading.fault(
                f"security.{key}", f"has {len(octets.strip())} octets",
                f"{SECRET_OCTETS_MIN} to {SECRET_OCTETS_MAX}: `openssl rand -hex 32 > {secret}`",
            )  # fmt: skip
    return SecurityPart(table["syslog"], place)
