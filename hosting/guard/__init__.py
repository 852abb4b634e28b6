"""Guards answers: how much one client or one identifier may take."""
