"""What a machine can do for faults: probed first, so that a scenario says what is missing and is inconclusive, or fails where
CI=true."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Capability(StrEnum):
    """What a scenario may need of the machine or of the system it is run on."""

    SHIM = "shim"  # a C compiler at hand
    POWER = "power"  # loop-mounted XFS that forgets what was not synced
    SMALL_DISK = "small disk"
    NETWORK = "network"  # namespaces, bridge, nftables
    WIRES = "wires"  # namespaces joined by a switch of our own, on TAP devices
    MEMORY = "memory limit"
    FEED = "feed"  # the system takes a source's stream and answers for it
    MEMBERSHIP = "membership"  # the system can change its members
    VERSIONS = "versions"  # the system can run another version of itself
    AMNESIA = "amnesia"  # the system tells that a member was refused its vote
    LEADER = "leader"  # the system has one and can say which


NEEDS: dict[Capability, str] = {
    Capability.SHIM: "a C compiler: install the package gcc",
    Capability.POWER: "root, a free loop device, the kernel's XFS and the package xfsprogs",
    Capability.SMALL_DISK: "root: it mounts a tmpfs",
    Capability.NETWORK: "root, the packages iproute2 and nftables, and bridge filters in the kernel",
    Capability.WIRES: "root, the package iproute2, and /dev/net/tun",
    Capability.MEMORY: "root and a memory controller of cgroup v1 or v2 that may be written",
    Capability.FEED: "a system with sources",
    Capability.MEMBERSHIP: "a system whose members change",
    Capability.VERSIONS: "a second version: set FAULTS_OLD_TREE to a checked-out tree of it that was set up",
    Capability.AMNESIA: "a system that reports it",
    Capability.LEADER: "a system with a leader",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found: `why` is empty when it is there."""

    capability: Capability
    why: str = ""

    @property
    def there(self) -> bool:
        return not self.why

    def missing(self) -> str:
        """One sentence with the package or the right that is missing."""
        return f"no {self.capability} here ({self.why}); it needs {NEEDS[self.capability]}"
