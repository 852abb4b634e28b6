"""People whose signatures count: their keys, and decisions that need two of them."""
