"""The source agent: publishes a registry we did not write, with a durable gapless position of its own."""
