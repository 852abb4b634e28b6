"""The operator's side: commands, metrics, reports and documents."""

from importlib.metadata import version

VERSION = version("zaibei")
