"""Asks Handle servers: over UDP, TCP and HTTP, one site after another or hedged, as a library and for `zaibei resolve`."""
