"""For nodes: publish a registry from your own code.

from replica.client import Publisher

with Publisher("source.toml") as registry:
    registry.put("88.118.8/XYZ-001", {"URL": "https://example.cn/XYZ-001"})
    registry.delete("88.118.8/OLD-1")
    receipt = registry.commit()             # on this machine's disk
    receipt.wait(timeout_s=10)              # True: on a majority of the copy's disks
"""

from replica.client.publisher import Publisher, Receipt

__all__ = ["Publisher", "Receipt"]
