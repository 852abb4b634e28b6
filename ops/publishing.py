"""Where a takeover is made known, by the configuration: recursive nodes, top-level nodes by file or by record, a program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hosting.client.admin import AdminKey, parse_reference
from hosting.client.edge_admin import HandleAdmin
from hosting.client.lookup import Server
from ops.config import MemberConfig
from ops.config.address import Address
from ops.config.edge_load import read_file
from ops.config.publishing import private_of, secret_of
from ops.config.read import WrongError
from ops.config.values import RequestFolder, TopRecord
from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer
from replica.takeover.edge_hook import HookConfig, HookPublisher
from replica.takeover.edge_recursive import RecursiveConfig, RecursivePublisher
from replica.takeover.edge_request import RequestConfig, RequestPublisher
from replica.takeover.edge_top_record import TopRecordConfig, TopRecordPublisher
from replica.takeover.publish import Publisher


def publishers_of(config: MemberConfig, signer: Signer, own_site: bytes) -> tuple[Publisher, ...]:
    """Every adapter of the configuration, in its order.

    Args:
        signer: signs requests by file: this member's.
        own_site: HS_SITE data of this cluster; b"": it has none.
    """
    found: list[Publisher] = [
        RecursivePublisher(RecursiveConfig(one.name, one.url, flush=one.flush, token_file=one.token_file))
        for one in config.recursives
    ]
    found += [_by_file(config, one, signer, own_site) for one in config.request_folders]
    found += [_by_record(config, one) for one in config.top_records]
    found += [HookPublisher(HookConfig(one.name, one.program, float(one.run_s))) for one in config.announces]
    return tuple(found)


def _by_file(config: MemberConfig, one: RequestFolder, signer: Signer, own_site: bytes) -> Publisher:
    issuer = (one.top_level, config.issuers()[one.top_level]) if one.top_level else None
    resolver = None if one.resolver is None else HandleAdmin(_server(one.resolver))
    return RequestPublisher(
        RequestConfig(one.name, one.folder, one.answers, config.member.name, signer, issuer, own_site), resolver
    )


def _by_record(config: MemberConfig, one: TopRecord) -> Publisher:
    server = _server(one.server)
    settings = TopRecordConfig(one.name, str(server), one.index, config.site.ttl_s)
    return TopRecordPublisher(settings, HandleAdmin(server, key_of(one)))


def key_of(one: TopRecord) -> Callable[[], AdminKey]:
    """Reads the key's file at each use, so that it may be replaced without a restart. It raises ZaibeiError(INVALID_CONFIG)."""
    at = parse_reference(one.admin)

    def read() -> AdminKey:
        try:
            if one.key_file is not None:
                return AdminKey(at, private=private_of(read_file(one.key_file, True)))
            return AdminKey(at, secret=secret_of(read_file(one.secret_file or Path(), True)))
        except WrongError as wrong:
            text = f"the key of {one.name}: {wrong.what}. Next: {wrong.instead}"
            raise ZaibeiError(Code.INVALID_CONFIG, text, retry=True) from wrong

    return read


def _server(address: Address) -> Server:
    return Server("tcp", address.host, address.port)
