"""The operator's channel to a running member: a Unix socket only its user may open, one JSON document a line."""
