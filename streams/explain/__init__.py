"""`probewatch explain`: finds a decision in a history, traces it, and compares its raw requests."""
