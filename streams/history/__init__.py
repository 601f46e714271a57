"""Where history comes from: record files, archives, ranges of Kafka topics."""
