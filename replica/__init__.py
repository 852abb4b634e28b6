"""The copy: what a registry told us, kept provably and given back."""
