"""A configuration for people and programs: effective values, each with its origin; and the commented example file. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ops.config.schema import REQUIRED, SECTIONS, Key
from ops.config.values import MemberConfig, SecurityPart

LISTENERS = ("handle", "http", "https", "grpc", "feed", "beats", "registration", "metrics")
LISTEN_KEYS = ("fronts", "allow_public", "basic_in_clear", "https_certificate", "https_key", "https_clients")


def document(config: MemberConfig) -> dict[str, Any]:
    """The configuration as a JSON document with the file's own names. No secret is in it: those stay in their files."""
    member, listen, site = config.member, config.listen, config.site
    return {
        "member": {
            "name": member.name,
            "data": str(member.data),
            "machine": member.machine,
            "log": member.log,
            "log_level": member.log_level,
        },
        "listen": {
            **{name: [str(a) for a in getattr(listen, name)] for name in LISTENERS},
            **{name: getattr(listen, name) for name in LISTEN_KEYS},
        },
        "site": {
            "description": site.description,
            "addresses": [asdict(address) for address in site.addresses],
            "ttl_s": site.ttl_s,
            "key_file": str(site.key_file or ""),
        },
        "limits": {key.name: getattr(config.limits, key.name) for key in SECTIONS["limits"].keys},
        "guard": {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(config.guard).items()},
        "security": _security(config.security),
        "probes": asdict(config.probes) | {"networks": list(config.probes.networks)},
        "cluster": {
            "listen": [str(address) for address in config.cluster.listen],
            "reach": [str(address) for address in config.cluster.reach],
            "zone": config.cluster.zone,
            "replicas": config.cluster.replicas,
        },
        "pki": {
            "folder": str(config.pki.folder or ""),
            "passphrase_file": str(config.pki.passphrase_file or ""),
            "roots": [str(path) for path in config.pki.roots],
            "crl": [str(path) for path in config.pki.lists],
            **{name: [str(a) for a in getattr(config.pki, name)] for name in ("enrol", "reach", "feeds")},
        },
        "source": [
            {
                "name": source.name,
                "fingerprint": source.fingerprint,
                "prefixes": list(source.prefixes),
                "case_sensitive": list(source.case_sensitive),
                "mode": source.mode.name.lower(),
                "pull": [str(address) for address in source.pull],
                "horizon_s": source.horizon_s,
                "rpo_s": source.rpo_s,
                "rpo_changes": source.rpo_changes,
                "armed": source.armed,
                "takeover": str(source.takeover),
                "probe_name": source.probe_name,
                "probes": [{"protocol": p.protocol, "address": p.address, "port": p.port} for p in source.probes],
                "registration_probes": [
                    {"protocol": p.protocol, "address": p.address, "port": p.port} for p in source.registration_probes
                ],
                "unavailable_s": source.unavailable_s,
                "zone": source.zone,
                "hosted": source.hosted,
                "leaves": source.hosted and source.peer is not None,
                "registrars": [{"name": one.name, "fingerprint": one.fingerprint} for one in source.registrars],
            }
            for source in config.sources
        ],
        **_adapters(config),
        "operator": [{"name": o.name, "public_key": o.public_key.hex()} for o in config.operators],
        "top_level": [{"name": o.name, "public_key": o.public_key.hex()} for o in config.top_levels],
    }


def _security(security: SecurityPart) -> dict[str, Any]:
    hook = security.webhook
    return {
        "syslog": list(security.syslog),
        "webhook": "" if hook is None else hook.url,
        "webhook_secret_file": "" if hook is None else str(hook.secret_file),
        "webhook_ca_file": "" if hook is None or hook.ca_file is None else str(hook.ca_file),
    }


def _adapters(config: MemberConfig) -> dict[str, Any]:
    """Where a takeover is made known."""
    return {
        "recursive": [
            {"name": r.name, "url": r.url, "token_file": str(r.token_file) if r.token_file else "", "flush": r.flush}
            for r in config.recursives
        ],
        "request_folder": [
            {
                "name": one.name,
                "folder": str(one.folder),
                "answers": str(one.answers),
                "top_level": one.top_level,
                "resolver": str(one.resolver or ""),
            }
            for one in config.request_folders
        ],
        "top_record": [
            {
                "name": one.name,
                "server": str(one.server),
                "admin": one.admin,
                "secret_file": str(one.secret_file or ""),
                "key_file": str(one.key_file or ""),
                "index": one.index,
            }
            for one in config.top_records
        ],
        "announce": [{"name": one.name, "program": str(one.program), "run_s": one.run_s} for one in config.announces],
    }


def rows(config: MemberConfig, origins: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(path, value, origin) of every effective value, in the order of the file."""
    for section, content in document(config).items():
        tables = (
            [(section, content)] if isinstance(content, dict) else [(f"{section}[{at}]", t) for at, t in enumerate(content, 1)]
        )
        for prefix, table in tables:
            for name, value in table.items():
                path = f"{prefix}.{name}"
                yield path, _plain(value), origins.get(path, "derived")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(item)}" for name, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def example() -> str:
    """The example file: every key with its sentence; defaults stand as comments, so that the file as it is means the defaults."""
    out = ["# zaibei: one member. Every line that is commented out shows its default.", ""]
    for section in SECTIONS.values():
        out.append(f"# {section.help}")
        out.append(f"#[[{section.name}]]" if section.many else f"[{section.name}]")
        out.extend(f"#{key.name} = {_toml(key)}  # {key.help}" for key in section.keys)
        out.append("")
    return "\n".join(out)


def _toml(key: Key) -> str:
    """The default as TOML, or the example where there is none."""
    if key.default is REQUIRED or (key.example and not key.default):
        return key.example
    return json.dumps(key.default, ensure_ascii=False)
