"""Checkers: read only the history of a run and say pass, fail or unknown."""
