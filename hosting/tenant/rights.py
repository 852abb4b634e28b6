"""May this caller do this? The one place that says so, for every protocol by which registrations come. Pure.

Whoever calls is known before: by the fingerprint of a certificate, or as `index:handle` after a challenge. What a right says
holds for its prefix and all below it. The order of the questions is the order in which a refusal is told:

1. documents that cannot be read, a tenant that is suspended: nobody changes anything;
2. a person or key that was taken out of use, or whose time is over;
3. an enterprise's prefix that is not in effect;
4. a right that covers the operation: the caller's, its groups', or an enterprise administrator's.

Who is named as a registrar in the configuration may administer, or nobody could grant the first right; while a registry has no
`hosting.tenant` document it may do everything there, and nobody else anything. The tenant's own document and its quota are the
centre's: nobody lifts a suspension or a limit from himself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hosting.tenant.enterprise import PrefixState
from hosting.tenant.papers import Enterprise, Papers, Right, one_spelling
from hosting.tenant.records import Named
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import ancestors, prefix_text


class Operation(StrEnum):
    """What is asked for; the words of a right's `operations`. ADD, MODIFY, REMOVE: values of a record that is there."""

    CREATE = "create"
    DELETE = "delete"
    ADD = "add"
    MODIFY = "modify"
    REMOVE = "remove"
    READ = "read"
    LIST = "list"
    ADMINISTER = "administer"


READING = frozenset({Operation.READ, Operation.LIST})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, after it proved that it is.

    Args:
        who: `index:handle`, or `sha256:` and hex of its certificate.
        groups: names of groups it is in by its own protocol (HS_VLIST), beside those its documents name.
        registrar: the configuration names it for this very source.
        centre: an operator at a member of ours.
    """

    who: str
    groups: frozenset[str] = frozenset()
    registrar: bool = False
    centre: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not. `retry_ms`: after so long it may succeed; None: waiting alone does not help."""

    code: Code
    message: str
    retry_ms: int | None = None

    @property
    def trouble(self) -> Trouble:
        again = "" if self.retry_ms is None else f"; again after {self.retry_ms} ms"
        return Trouble(self.code, self.message + again, retry=self.retry_ms is not None, retry_ms=self.retry_ms or 0)

    @property
    def error(self) -> ZaibeiError:
        found = self.trouble
        return ZaibeiError(found.code, found.message, retry=found.retry, retry_ms=found.retry_ms)


def may(caller: Caller, operation: Operation, identifier: Named | bytes, documents: Papers, *, now_ms: int) -> Refusal | None:
    """May it? None: it may.

    Args:
        identifier: the name asked for; or the key part of a prefix, to list or to administer below it.
        now_ms: Unix milliseconds; rights and keys end by it.
    """
    if caller.centre:
        return None
    prefix = identifier if isinstance(identifier, bytes) else identifier.owner
    tenant, changes = documents.tenant, operation not in READING
    if documents.damaged:
        return Refusal(Code.DAMAGED, f"{len(documents.damaged)} documents about this tenant cannot be read: ask the centre")
    if tenant is None:
        return None if caller.registrar else Refusal(Code.NOT_AUTHORISED, f"{caller.who} is no registrar here")
    if tenant.suspended and changes:
        return Refusal(
            Code.REFUSED, f"the tenant is suspended: {tenant.suspended}. Registrations are refused until it is resumed"
        )
    _, fault = _person(caller.who, documents, now_ms)
    if fault:
        return Refusal(Code.NOT_AUTHORISED, fault)
    if caller.registrar and operation is Operation.ADMINISTER:
        return None
    found = documents.enterprises.longest(prefix)
    if found is not None and changes and operation is not Operation.ADMINISTER and found[1].state is not PrefixState.IN_EFFECT:
        return Refusal(Code.REFUSED, f"the prefix {prefix_text(found[0])} is {found[1].state}: registrations need it in effect")
    if not changes and (tenant.visibility == "public" or caller.registrar):
        return None
    if granted(caller, operation, prefix, documents, now_ms=now_ms):
        return None
    return Refusal(Code.NOT_AUTHORISED, f"{caller.who} has no right to {operation} below {prefix_text(prefix)[:80]}")


def granted(caller: Caller, operation: Operation, prefix: bytes, documents: Papers, *, now_ms: int) -> bool:
    """Does the tenant itself say so, by a right or an enterprise's administrators? What everybody may counts for nothing."""
    who, fault = _person(caller.who, documents, now_ms)
    if fault:
        return False
    found = documents.enterprises.longest(prefix)
    return _granted(caller, who, operation, prefix, documents, now_ms) or (
        found is not None and _delegated(who, operation, found[1])
    )


def _person(who: str, documents: Papers, now_ms: int) -> tuple[str, str]:
    """Whose key it is, and why it must not be used; who is unknown stands for himself, with the rights given to that name."""
    key = documents.keys.get(who)
    if key is not None:
        if not key.active:
            return who, f"the key {who} was taken out of use"
        if key.until_ms and now_ms >= key.until_ms:
            return who, f"the time of the key {who} is over"
        who = key.person
    person = documents.persons.get(who)
    if not person.active if person is not None else one_spelling(who) in documents.out:
        return who, f"{who} was taken out of use"
    return who, ""


def _granted(caller: Caller, who: str, operation: Operation, prefix: bytes, documents: Papers, now_ms: int) -> bool:
    person = documents.persons.get(who)
    groups = caller.groups.union(person.groups if person is not None else ())
    names = {caller.who, who, *(f"group:{name}" for name in groups)}
    around = frozenset(ancestors(prefix))
    return any(
        under in around and _covers(right, operation, now_ms) for name in names for under, right in documents.rights.get(name, ())
    )


def _covers(right: Right, operation: Operation, now_ms: int) -> bool:
    return operation.value in right.operations and not (right.until_ms and now_ms >= right.until_ms)


def _delegated(who: str, operation: Operation, enterprise: Enterprise) -> bool:
    """Administrators of an enterprise in effect: its identifiers, not the documents about it."""
    return (
        who in enterprise.administrators and enterprise.state is PrefixState.IN_EFFECT and operation is not Operation.ADMINISTER
    )
