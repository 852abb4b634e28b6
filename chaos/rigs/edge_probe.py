"""Asks the machine for each capability once a process, by really doing it in small."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from chaos.faults import edge_shim
from chaos.rigs import edge_memory, edge_network, edge_power, edge_small_disk, edge_wire_lab
from chaos.rigs.capability import Capability, Probe

ROOT_ONLY = (Capability.POWER, Capability.SMALL_DISK, Capability.NETWORK, Capability.WIRES, Capability.MEMORY)


@functools.cache
def probe(capability: Capability) -> Probe:
    """Is it here? Capabilities of the system under test (feed, membership …) are the system's to tell."""
    if capability in ROOT_ONLY and os.geteuid() != 0:
        return Probe(capability, "not root")
    with tempfile.TemporaryDirectory(prefix="zaibei-probe-") as folder:
        at = Path(folder) / "rig"
        match capability:
            case Capability.SHIM:
                return Probe(capability, "" if edge_shim.build() else "no compiler")
            case Capability.POWER:
                return Probe(capability, edge_power.probe(at))
            case Capability.SMALL_DISK:
                return Probe(capability, edge_small_disk.probe(at))
            case Capability.NETWORK:
                return Probe(capability, edge_network.probe())
            case Capability.WIRES:
                return Probe(capability, edge_wire_lab.probe())
            case Capability.MEMORY:
                return Probe(capability, edge_memory.probe())
    return Probe(capability, "the system under test does not say that it has it")
