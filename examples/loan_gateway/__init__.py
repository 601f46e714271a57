"""A small AI gateway: a loan-decision model over HTTP that logs to Kafka and obeys Probewatch's throttle decisions."""
