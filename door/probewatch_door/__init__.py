"""Probewatch's enforcement point for gateways ("door"): follow throttle decisions on Kafka, hold clients to them.

decisions   the decisions in force, followed on Kafka
asgi        the door for ASGI applications
pseudonym   names of clients
record      the throttle record
in_force    which of several records is in force
"""

__version__ = "0.1.0"
