"""How fast Probewatch is: each part answers one question, beside a plain read of a topic in the same run."""
