"""All checks of one history together."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.check import final, linear, resolution
from chaos.check.history import Op, Operation, by_key
from chaos.check.verdict import Finding, Verdict

REGISTERED = (Op.GET, Op.PUT, Op.APPEND, Op.CAS)


def judge(
    operations: Sequence[Operation], *, steps_max: int = linear.STEPS_MAX, stale_ms_max: int = resolution.STALE_MS_MAX
) -> list[Finding]:
    """Linearizable for each key that clients read and write; acked in final for all; resolution for each name that was resolved.

    Names that were resolved are a source's: its puts are judged with the answers, not as a register.
    """
    answered = resolution.keys_with_answers(operations)
    registers = [one for one in operations if one.key not in answered]
    findings = [linear.judge(key, of_key, steps_max=steps_max) for key, of_key in sorted(by_key(registers).items())]
    if any(one.ok and one.op is not Op.GET for one in registers):
        findings.append(final.judge(registers))
    findings += [resolution.judge(key, of_key, stale_ms_max=stale_ms_max) for key, of_key in sorted(answered.items())]
    if not findings:
        findings.append(Finding("history", "", Verdict.UNKNOWN, "it is empty"))
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """The last line of every judgement."""
    counts = {verdict: sum(one.verdict is verdict for one in findings) for verdict in Verdict}
    return f"{counts[Verdict.PASS]} passed, {counts[Verdict.FAIL]} failed, {counts[Verdict.UNKNOWN]} unknown"
