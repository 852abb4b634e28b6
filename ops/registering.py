"""The registration port of a member, out of its configuration: whose sources take registrations, and who may register in them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from cryptography.hazmat.primitives.asymmetric import rsa

from hosting.answer.port import AnswerPort
from hosting.guard.guesses import Guesses
from hosting.handle.edge_look import Looks
from hosting.handle.edge_registrar import Registrar, Sources
from hosting.tenant.edge_denials import DenialBook
from hosting.tenant.edge_port import RegistrationPort
from hosting.tenant.edge_views import TenantViews
from hosting.tenant.offices import Offices, OfficeSettings
from ops.config.values import MemberConfig, Source
from replica.member.member import Member
from replica.model.audit_seal import AuditKeys
from replica.model.edge_identity import Identity
from replica.model.identifier import prefix_key
from replica.model.identity import Pins


def tenants_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """Sources in which registrations may be made here."""
    return tuple(source.name for source in sources if source.hosted or source.registrars)


def tenant_views(sources: Sequence[Source], port: AnswerPort, stack: AsyncExitStack) -> TenantViews:
    """The port with what tenants' documents say about being answered; to be started, and stopped when the stack closes."""
    views = TenantViews(port, tenants_of(sources))
    stack.push_async_callback(views.stop)
    return views


def registration_port(sources: Sequence[Source], member: Member, identity: Identity) -> RegistrationPort:
    """Not yet listening. A source with a node of its own takes registrations here only while it is taken over."""
    names = frozenset(tenants_of(sources))
    settings = [
        OfficeSettings(source.name, tuple(map(prefix_key, source.prefixes)), Pins(source.registrars))
        for source in sources
        if source.name in names
    ]
    return RegistrationPort(identity, Offices(settings, member.hosted, _now_ms, owner_of=member.owner_of))


def registrar_of(
    offices: Offices,
    port: AnswerPort,
    guesses: Guesses | None = None,
    basic_in_clear: bool = False,
    server_key: rsa.RSAPrivateKey | None = None,
) -> Registrar | None:
    """Who answers registrations over the Handle protocol and the JSON API; None: no source lives at this member."""
    if not offices.settings:
        return None
    looks, sources = Looks(offices, port), Sources(_now_ms, secrets.token_bytes)
    return Registrar(looks, sources, guesses, basic_in_clear=basic_in_clear, server_key=server_key)


def book_of_refusals(config: MemberConfig, keys: AuditKeys, offices: Offices, stack: AsyncExitStack) -> DenialBook:
    """The audit of what is refused here, in the data folder; written from now on, and to its end when the stack closes."""
    days = config.limits.audit_kept_days
    book = DenialBook(config.member.data, offices.denials, _now_ms, keys=keys, kept_days=days)
    book.start()
    stack.push_async_callback(book.stop)
    return book


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
