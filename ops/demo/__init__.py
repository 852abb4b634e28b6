"""`zaibei demo`: the whole story on real registrations, on this machine's loopback, judged by an outside client."""
