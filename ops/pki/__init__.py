"""The private CA of a cluster: its folder, what it signed and revoked, the tokens it gave out, how a process gets its own."""
