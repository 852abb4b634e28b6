"""The Raft core: pure, synchronous, deterministic; written from the Raft thesis."""
