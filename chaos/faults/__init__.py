"""Faults of real processes, each with the heal that belongs to it."""
