"""The cluster: who its members are, where groups live, and how both change step by step."""
