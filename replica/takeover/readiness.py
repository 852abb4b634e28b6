"""`takeover-ready` in peace time: would a takeover of this source be found and right, if it happened now? (DESIGN, promise 15)

Each check has three results; what was not looked at is UNKNOWN, and UNKNOWN is never PASS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replica.model.group_state import GroupState
from replica.model.states import Result
from replica.model.view import FRESH_AGE_MS_MAX

TTL_S_MAX = 300  # DOMAIN: bounds the recovery time through a caching resolver
IDENTITY_LEFT_S_MIN = 14 * 86_400
PROBE_AGE_MS_MAX = 30_000
REHEARSAL_AGE_MS_MAX = 24 * 3_600_000
BEAT_AGE_MS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Check:
    """One answer: `detail` says what was seen and, unless it passed, what to do."""

    name: str
    result: Result
    detail: str

    def view(self) -> dict[str, object]:
        return {"name": self.name, "result": self.result.value, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The last drill of the publication path with a shadow prefix."""

    passed: bool
    detail: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class Peace:
    """What is known of one source at this moment; None everywhere means: not looked at, or not known.

    Args:
        age_ms: age of our position.
        addresses: rows of our own published addresses (families.py).
        site_listed: our site stands in the node's published sites.
        site_ttl_s: ttl of the prefix's HS_SITE values, the highest over its prefixes.
        identity_left_s: until this member's certificate ends.
        probe_age_ms: since the node's resolution endpoints last answered a probe; `probe_failures`: since then.
        beat_age_ms: since the last datagram beat; None: none yet.
    """

    state: GroupState
    age_ms: int | None
    adapters: tuple[str, ...]
    own_site_known: bool
    site_listed: bool | None
    site_ttl_s: int | None
    identity_left_s: int | None
    endpoints: int
    probe_age_ms: int | None
    probe_failures: int
    armed: bool
    beat_age_ms: int | None
    rehearsal: Rehearsal | None
    addresses: Sequence[Mapping[str, object]] = ()


def assess(peace: Peace) -> tuple[Check, ...]:
    """All checks of one source, always the same names in the same order."""
    return (
        _site(peace),
        _ttl(peace.site_ttl_s),
        _identity(peace.identity_left_s),
        _copy(peace.state),
        _position(peace.age_ms),
        _beats(peace),
        _probes(peace),
        _addresses(peace),
        _publication(peace),
    )


def ready(checks: Sequence[Check]) -> Result:
    """The worst of all: FAIL before UNKNOWN before PASS; nothing checked is UNKNOWN."""
    results = {check.result for check in checks}
    for worst in (Result.FAIL, Result.UNKNOWN):
        if worst in results or not results:
            return worst if results else Result.UNKNOWN
    return Result.PASS


def _site(peace: Peace) -> Check:
    if not peace.own_site_known:
        return Check("site", Result.FAIL, "this cluster has no site of its own to publish: set its public addresses")
    if peace.site_listed:
        return Check("site", Result.PASS, "our site is published beside the node's")
    if peace.adapters:
        return Check("site", Result.PASS, f"our site can be published through {', '.join(peace.adapters)}")
    if peace.site_listed is None:
        return Check("site", Result.UNKNOWN, "whether the node lists our site is not known, and no adapter can publish it")
    return Check("site", Result.FAIL, "the node does not list our site and no adapter can publish it")


def _addresses(peace: Peace) -> Check:
    """By family: does what we publish of ourselves answer?"""
    if not peace.addresses:
        return Check("addresses", Result.UNKNOWN, "nobody looks at our own published addresses")
    told = ", ".join(f"{row['family']} {row['address']} {row['state']}" for row in peace.addresses)
    told = f"{told} ({peace.addresses[0]['seen']})"
    states = {row["state"] for row in peace.addresses}
    if "dead" in states:
        return Check("addresses", Result.FAIL, f"{told}: look at the route and the filter of what is dead")
    return Check("addresses", Result.UNKNOWN if "unknown" in states else Result.PASS, told)


def _ttl(ttl_s: int | None) -> Check:
    if ttl_s is None:
        return Check("ttl", Result.UNKNOWN, "the ttl of the node's HS_SITE is not known")
    if ttl_s > TTL_S_MAX:
        return Check("ttl", Result.FAIL, f"HS_SITE ttl is {ttl_s} s: ask the node for at most {TTL_S_MAX} s")
    return Check("ttl", Result.PASS, f"HS_SITE ttl is {ttl_s} s")


def _identity(left_s: int | None) -> Check:
    if left_s is None:
        return Check("identity", Result.UNKNOWN, "this member's certificate was not looked at")
    if left_s < IDENTITY_LEFT_S_MIN:
        return Check("identity", Result.FAIL, f"this member's certificate ends in {left_s // 86_400} days: renew it")
    return Check("identity", Result.PASS, f"valid for {left_s // 86_400} days")


def _copy(state: GroupState) -> Check:
    if not state.ready:
        return Check("copy", Result.FAIL, "no complete copy is held yet")
    if state.verified is None:
        return Check("copy", Result.UNKNOWN, "never compared with a certificate of the source")
    if not state.verified:
        return Check("copy", Result.FAIL, "differs from the source's certificate")
    return Check("copy", Result.PASS, f"equal to the source's certificate, {state.records} records")


def _position(age_ms: int | None) -> Check:
    if age_ms is None:
        return Check("position", Result.UNKNOWN, "no beat has vouched for our position")
    if age_ms > FRESH_AGE_MS_MAX:
        return Check("position", Result.FAIL, f"our position is {age_ms} ms old: the feed lags or stands")
    return Check("position", Result.PASS, f"{age_ms} ms old")


def _beats(peace: Peace) -> Check:
    if not peace.armed:
        return Check("beats", Result.FAIL, 'automatic takeover is off: its [[source]] needs takeover = "automatic"')
    if peace.beat_age_ms is None:
        return Check("beats", Result.UNKNOWN, "no datagram beat has arrived: is our beat port reachable from the node?")
    if peace.beat_age_ms > BEAT_AGE_MS_MAX:
        return Check("beats", Result.FAIL, f"the last datagram beat came {peace.beat_age_ms} ms ago")
    return Check("beats", Result.PASS, f"last {peace.beat_age_ms} ms ago")


def _probes(peace: Peace) -> Check:
    if not peace.endpoints:
        return Check("probes", Result.FAIL, "the source names no resolution endpoint to probe: [[resolution]] in its source.toml")
    if peace.probe_age_ms is None:
        word = Result.FAIL if peace.probe_failures else Result.UNKNOWN
        return Check("probes", word, f"never answered, {peace.probe_failures} failed")
    if peace.probe_failures or peace.probe_age_ms > PROBE_AGE_MS_MAX:
        return Check("probes", Result.FAIL, f"last answered {peace.probe_age_ms} ms ago, {peace.probe_failures} failed since")
    return Check("probes", Result.PASS, f"answered {peace.probe_age_ms} ms ago")


def _publication(peace: Peace) -> Check:
    rehearsal = peace.rehearsal
    if not peace.adapters:
        return Check("publication", Result.UNKNOWN, "no adapter is configured: own answers alone do not redirect anybody")
    if rehearsal is None:
        return Check("publication", Result.UNKNOWN, "never rehearsed with a shadow prefix")
    if not rehearsal.passed:
        return Check("publication", Result.FAIL, f"the last rehearsal failed: {rehearsal.detail}")
    if rehearsal.age_ms > REHEARSAL_AGE_MS_MAX:
        return Check("publication", Result.UNKNOWN, f"last rehearsed {rehearsal.age_ms // 3_600_000} h ago")
    return Check("publication", Result.PASS, rehearsal.detail)
