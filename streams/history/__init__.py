"""Sources of history: record files, archives, ranges of Kafka topics."""
