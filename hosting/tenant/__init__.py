"""Registration for sources that live here: changes with preconditions, linearizable, each with a definite outcome or UNKNOWN."""
