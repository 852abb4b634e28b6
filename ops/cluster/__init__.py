"""The operator's side of a cluster: what is shown of it, and the acts that change it."""
