"""Resolution: from a question to the values that may leave."""
