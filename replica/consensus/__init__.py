"""The journal and the group log: what is committed, in which order, and what a restart may trust.

Way of the data: `GroupLog.propose` -> `Journal` (one flush for all groups) -> `ApplyThread` -> `StateMachine` (a store).

| file | purpose |
| --- | --- |
| port.py | the ports: StateMachine, Consensus, Journal and Apply, and the values they speak |
| record.py | octets of the journal's rows |
| recovery.py | pure: what to do at a start with what the journal and the store hold |
| walk.py | pure: which entries of a group are sound |
| group.py, group_limits.py | GroupLog, the log of a group with one member |
| memory.py | memory twins of the ports |
| wire.py, link_port.py, link_checks.py, link_frames.py, link_watch.py, link_book.py | messages between members, pure |
| edge_link.py, edge_link_call.py, edge_link_service.py, edge_link_*.py; link_memory.py | links over gRPC; their memory twin |
| edge_journal.py, journal_group.py, journal_ops.py, edge_rows.py, edge_rocks.py, edge_disk.py | the journal on RocksDB |
| edge_apply.py | the one thread that applies |
| edge_metrics.py | what is measured |
"""
