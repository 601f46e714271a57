"""Kafka: clients, topics, rights, groups, and the embedded broker."""
