"""One file a scenario: the same value is an operator's drill and a case of CI."""
