"""Decides who answers for a source, and when it is given back."""
