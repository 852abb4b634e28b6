"""What an operator looks at before a takeover or a return, and the token that says the world is still the one looked at."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from replica.model.group_state import GroupState
from replica.model.identifier import prefix_text
from replica.model.ladder import Stage
from replica.model.ladder_epochs import KEPT
from replica.model.states import Authority, Result
from replica.takeover.detector import Verdict
from replica.takeover.machine import HELD_OFF, PLANNED, RETURNED, RETURNING, Order, World, unfit
from replica.takeover.overlay import live_overlays, serial_above
from replica.takeover.readiness import Check

TOKEN_HEX = 16
REASON_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """One planned act on one source's resolution.

    Args:
        action: "takeover" or "withdraw".
        refusal: why it cannot be run; empty when it can.
        warnings: what the operator should know and may accept.
        stable: the part of the world that must be unchanged when it is run. Position and age move all the time: they are shown,
            and their epoch is held.
        act: identity of this run; running the same plan twice is one act.
    """

    action: str
    source: str
    prefixes: tuple[str, ...]
    position: str
    age_ms: int | None
    records: int
    serial_from: int
    adapters: tuple[str, ...]
    readiness: tuple[Check, ...]
    verdict: Verdict
    refusal: str
    warnings: tuple[str, ...]
    stable: str

    @property
    def token(self) -> str:
        """16 hex digits over everything in `stable`."""
        return sha256(self.stable.encode()).hexdigest()[:TOKEN_HEX]

    @property
    def act(self) -> str:
        return f"{PLANNED if self.verdict is Verdict.ALIVE else 'ordered:'}{self.token}"

    def order(self, reason: str) -> Order:
        """What running it means for the machine."""
        return Order(self.action == "takeover", self.act, reason[:REASON_CHARS_MAX])

    def view(self) -> dict[str, object]:
        """The stable JSON contract of `zaibei takeover plan --json`."""
        return {
            "action": self.action,
            "source": self.source,
            "prefixes": list(self.prefixes),
            "position": self.position,
            "age_ms": self.age_ms,
            "records": self.records,
            "serial_from": self.serial_from,
            "adapters": list(self.adapters),
            "readiness": [check.view() for check in self.readiness],
            "verdict": self.verdict.value,
            "refusal": self.refusal,
            "warnings": list(self.warnings),
            "token": self.token,
        }


def plan_of(action: str, world: World, readiness: tuple[Check, ...]) -> Plan:
    """Look at the world and say what the act would do.

    Args:
        action: "takeover" or "withdraw".
    """
    state = world.state
    taken = state.authority is Authority.RESOLUTION and not state.authority_act.startswith(RETURNING)
    refusal = _takeover_refusal(state, taken) if action == "takeover" else _withdraw_refusal(state, taken)
    return Plan(
        action=action,
        source=state.source,
        prefixes=tuple(prefix_text(prefix) for prefix in state.prefixes),
        position=str(state.position),
        age_ms=world.age_ms,
        records=state.records,
        serial_from=serial_above(state, ()),
        adapters=world.adapters,
        readiness=readiness,
        verdict=world.verdict,
        refusal=refusal,
        warnings=tuple(_warnings(action, world, readiness)),
        stable=_stable(action, world, readiness),
    )


def already_done(state: GroupState, plan_token: str, action: str) -> bool:
    """The act of this token is committed: running it again is success without change."""
    act = state.authority_act
    mine = act.endswith(f":{plan_token}")
    if action == "takeover":
        return mine and state.authority is Authority.RESOLUTION and not act.startswith(RETURNING)
    return mine and (act.startswith((RETURNING, RETURNED, HELD_OFF)))


def _takeover_refusal(state: GroupState, taken: bool) -> str:
    if state.authority is Authority.REGISTRATION:
        return "registration was taken over: resolution follows it"
    if taken:
        return f"already taken over ({state.authority_act})"
    return unfit(state)


def _withdraw_refusal(state: GroupState, taken: bool) -> str:
    if state.authority is Authority.REGISTRATION:
        return "registration was taken over: it is given back by a failback"
    return "" if taken else "nothing is taken over"


def _warnings(action: str, world: World, readiness: tuple[Check, ...]) -> list[str]:
    found = [f"{check.name}: {check.detail}" for check in readiness if check.result is not Result.PASS]
    if action == "takeover":
        if world.verdict is Verdict.ALIVE:
            found.append("the source is alive: it stays taken over until an operator gives it back")
        if world.age_ms is None:
            found.append("the age of our position is unknown: newer changes of the source may be missing here")
        if not world.adapters:
            found.append("no publication adapter is configured: we would serve without being found")
        return found
    if world.verdict is not Verdict.ALIVE:
        found.append("the source looks dead: lookups will fail until it answers")
    ladder = world.state.ladder
    if ladder.stage in (Stage.HANDED_BACK, Stage.ACCEPTED) and world.state.authority_act == KEPT + ladder.act:
        found.append("what its own resolver answers was not seen to be what was registered here: its old answers may come back")
    return found


def _stable(action: str, world: World, readiness: tuple[Check, ...]) -> str:
    state = world.state
    overlays = sorted((overlay.prefix.hex(), overlay.serial) for overlay in live_overlays(state).values())
    lines = [
        "zaibei takeover plan 1",
        f"action {action}",
        f"source {state.source}",
        f"prefixes {' '.join(sorted(prefix_text(prefix) for prefix in state.prefixes))}",
        f"authority {state.authority.name} {state.authority_act}",
        f"lineage {state.position.lineage.hex()} epoch {state.position.epoch} generation {state.generation}",
        f"feed {state.feed.name} verified {state.verified} ready {state.ready}",
        f"serial {state.serial_highest} overlays {overlays}",
        f"verdict {world.verdict.value}",
        f"adapters {' '.join(world.adapters)}",
        *(f"check {check.name} {check.result.value}" for check in readiness),
    ]
    return "\n".join(lines)
