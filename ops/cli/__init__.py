"""The command zaibei, one file per noun."""
