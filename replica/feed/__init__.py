"""Sessions that bring a source's changes in, and offer ours in the same way."""
