"""The end of a log in a planned switchover: nothing more is appended, until it goes on or a new epoch begins (SEMANTICS 5).

Nothing of it is on disk: a process that was started anew has a guard without a lease, which acknowledges nothing.
"""

from __future__ import annotations

from replica.agent.edge_log import AgentLog
from replica.model.digest import ContentDigest


class Seal:
    """Of one log. Satisfies replica.client.guard.Sealed."""

    def __init__(self, agent: AgentLog) -> None:
        self._agent = agent

    def seal(self) -> ContentDigest:
        """Waits for an append in flight; call from a worker thread. Twice is harmless.

        Returns:
            The content where this history ends, all of it on disk.
        """
        agent = self._agent
        with agent.turn():
            if agent._files.segments[-1].end != agent.head():  # an append got as far as the log
                agent._recover()
            agent.sealed = True
            return agent.content.digest

    def unseal(self) -> None:
        """Go on. Any thread."""
        self._agent.sealed = False
