"""Answers for identifiers and hosts the regions that have no node of their own."""
