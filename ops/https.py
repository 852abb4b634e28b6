"""Which files the HTTPS port of a member uses: those of the configuration, else the member's own identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hosting.front.edge_tls import TlsFiles
from ops.config import MemberConfig
from replica.model.edge_identity import CERTIFICATE_FILE, TLS_KEY_FILE


def tls_files(config: MemberConfig) -> TlsFiles:
    listen, own = config.listen, config.member.identity_folder
    return TlsFiles(
        listen.https_certificate or str(own / CERTIFICATE_FILE),
        listen.https_key or str(own / TLS_KEY_FILE),
        listen.https_clients or None,
    )


def https_places(https: Sequence[tuple[str, int]], files: TlsFiles) -> dict[str, Any]:
    """What a front process's file says of HTTPS; nothing where there is none, so that a front without it stays the same."""
    if not https:
        return {}
    return {"https": https, "tls": asdict(files)}
