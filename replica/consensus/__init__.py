"""The journal and the log of every source's group."""
