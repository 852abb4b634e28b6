"""What is done to the cluster in the story: its leader killed, frozen, a member wiped and fed anew, all killed at once.

The supervisor of a member that was killed starts it again at once. Nobody else helps but in one place: the command that feeds
a wiped copy anew.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from ops.cli.exits import Exit
from ops.demo.cluster_judge import NS_PER_MS, ClusterTold, Span, State
from ops.demo.looking import Looking
from ops.demo.members import NAMES
from ops.demo.stage import MANUFACTURERS, Stage
from replica.model.errors import Code, ZaibeiError

RECEIPT_S_MAX = 15.0
WHOLE_S_MAX = 40.0
FROZEN_S = 2.0  # long enough that another one leads when it wakes
COMMAND_S_MAX = 30.0
RESEED_S_MAX = 20.0  # of trying, while leaders change
ANSWER_S_MAX = 30.0

Note = Callable[..., None]


class Acts:
    """See the module. `told` is what they leave."""

    def __init__(self, stage: Stage, looking: Looking, note: Note) -> None:
        self._stage, self._look, self._note = stage, looking, note
        self.told = ClusterTold(len(NAMES))

    # ------------------------------------------------------------------------------------------------------- one is gone

    def lose_leader(self) -> None:
        """Under load; measured by what the pushing node gets: a receipt for something it registered after the kill."""
        name = self._look.leader(MANUFACTURERS)
        at_ns = self.kill(name)
        self._note("fault", f"{name}, which leads {MANUFACTURERS}, SIGKILLed", at_ns)
        self._stage.start(name, wait=False)
        receipt_ns = self._look.receipt_after(at_ns, RECEIPT_S_MAX)
        self.told.failover_ms = round((receipt_ns - at_ns) / NS_PER_MS, 1)
        self._note("act", f"another one leads: quorum receipts again {self.told.failover_ms:.0f} ms after the kill", receipt_ns)
        self.await_back(name, at_ns)

    def kill(self, name: str) -> int:
        self._look.out.add(name)
        return self._stage.children.pop(name).kill()

    def await_back(self, name: str, at_ns: int) -> None:
        """Until a restarted member votes and holds everything."""
        self._stage.await_ready(self._stage.children[name])
        back_ns = time.monotonic_ns()
        self._look.out.discard(name)
        self.told.spans.append(Span(name, State.DOWN, at_ns, back_ns))
        self._look.until_whole(WHOLE_S_MAX)
        self._note("return", f"{name} is back after {(back_ns - at_ns) / NS_PER_MS:.0f} ms, and up to date")

    def freeze_leader(self) -> None:
        """Worse than dead: its connections stand, and it does not know that it was deposed."""
        name = self._look.leader(MANUFACTURERS)
        process = self._stage.children[name].process
        self._look.out.add(name)
        process.send_signal(signal.SIGSTOP)
        at_ns = time.monotonic_ns()
        self._note("fault", f"{name}, which leads {MANUFACTURERS} now, frozen (SIGSTOP)", at_ns)
        try:
            receipt_ns = self._look.receipt_after(at_ns, RECEIPT_S_MAX)
            self.told.frozen_ms = round((receipt_ns - at_ns) / NS_PER_MS, 1)
            self._note("act", f"it was deposed: quorum receipts again {self.told.frozen_ms:.0f} ms after the freeze", receipt_ns)
            time.sleep(max(0.0, at_ns / 1e9 + FROZEN_S - time.monotonic()))
        finally:
            process.send_signal(signal.SIGCONT)
        until_ns = time.monotonic_ns()
        self._look.out.discard(name)
        self.told.spans.append(Span(name, State.FROZEN, at_ns, until_ns))
        self._look.until_whole(WHOLE_S_MAX)
        self._note("return", f"{name} goes on after {(until_ns - at_ns) / 1e9:.1f} s, follows and is up to date")

    # ------------------------------------------------------------------------------------------------------- wiped

    def wipe(self) -> None:
        """A member's copy of one source is gone; one command feeds it anew."""
        leader = self._look.leader(MANUFACTURERS)
        name = next(one for one in reversed(NAMES) if one != leader)
        at_ns = self.kill(name)
        shutil.rmtree(self._stage.members.data(name) / "stores" / MANUFACTURERS)
        self._note("fault", f"{name} SIGKILLed and its whole copy of {MANUFACTURERS} deleted", at_ns)
        self._stage.start(name)
        self._look.out.discard(name)
        self.told.spans.append(Span(name, State.DOWN, at_ns, time.monotonic_ns()))
        began_ns = self._reseed(name)
        self._look.until_seen(WHOLE_S_MAX, f"{name} fed anew", lambda: self._fed(name) or None)
        self._look.until_whole(WHOLE_S_MAX)
        ended_ns = time.monotonic_ns()
        self.told.spans.append(Span(name, State.FED, began_ns, ended_ns))
        self.told.reseed_s = round((ended_ns - began_ns) / 1e9, 1)
        self._note("act", f"{name} was fed anew by `zaibei cluster reseed`, and votes again, in {self.told.reseed_s:.1f} s")

    def _reseed(self, name: str) -> int:
        """Look at the plan, then run it, as often as the group has just another leader; returns when the run began."""
        until = time.monotonic() + RESEED_S_MAX
        command = ("cluster", "reseed", MANUFACTURERS, name)
        while True:
            asked = self._look.leader(MANUFACTURERS)
            try:
                plan = self.zaibei(asked, *command)["plan"]
                began_ns = time.monotonic_ns()
                self.zaibei(asked, *command, "--plan", plan["token"])
                return began_ns
            except ZaibeiError:
                if time.monotonic() > until:
                    raise

    def _fed(self, name: str) -> bool:
        """Its own store says that it holds a complete copy."""
        found = self._look.digests().get(MANUFACTURERS, {})
        return name in found and found[name][1] >= max(one[1] for one in found.values())

    def zaibei(self, member: str, *words: str, limit_s: float = COMMAND_S_MAX) -> dict[str, dict[str, str]]:
        """A command as an operator types it at a member. Raises ZaibeiError(REFUSED)."""
        command = [sys.executable, "-m", "ops.cli.main", *words, "--config", f"{member}.toml", "--json"]
        done = subprocess.run(command, cwd=self._stage.folder, capture_output=True, text=True, timeout=limit_s, check=False)
        if done.returncode != Exit.DONE:
            raise ZaibeiError(Code.REFUSED, f"zaibei {' '.join(words)}: {done.stdout[-400:]} {done.stderr[-200:]}")
        found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
        return found

    # ------------------------------------------------------------------------------------------------------- all are gone

    def lose_all(self) -> None:
        """All members in one moment, and back by themselves. The nodes are alive meanwhile."""
        name = next(iter(self._look.receipted()))
        children = [self._stage.children.pop(one) for one in NAMES]
        self._look.out.update(NAMES)
        at_ns = max([child.shoot() for child in children])
        for child in children:
            child.process.wait()
        self._note("fault", "all three members SIGKILLed in one moment", at_ns)
        for one in NAMES:
            self._stage.start(one, wait=False)
        answer_ns = self._look.first_answer(name, ANSWER_S_MAX)
        self.told.all_down_ns = (at_ns, answer_ns)
        self._note("act", f"restarted: the first answer {(answer_ns - at_ns) / NS_PER_MS:.0f} ms after the kill", answer_ns)
        for one in NAMES:
            self._stage.await_ready(self._stage.children[one])
            self.told.spans.append(Span(one, State.DOWN, at_ns, time.monotonic_ns()))
        self._look.out.clear()
        receipt_ns = self._look.receipt_after(at_ns, RECEIPT_S_MAX)
        self._note("act", f"quorum receipts again {(receipt_ns - at_ns) / NS_PER_MS:.0f} ms after the kill", receipt_ns)
        self._look.until_whole(WHOLE_S_MAX)
        self._note("return", "all three are back, and up to date")
