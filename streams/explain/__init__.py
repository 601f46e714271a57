"""`probewatch explain`: finds a decision, traces it, prints it as a tree."""
