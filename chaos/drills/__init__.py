"""How drills are run: when they may, when they are due, what stops them, and what they were worth."""
