"""Figures for Prometheus. Names of clients, prompts and values never become labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """One worker's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = self._counter("records", "Raw records read.", "topic")
        self.rejects = self._counter("rejects", "Rows or records sent to the dead-letter topic.", "reason")
        self.unjudged = self._counter("unjudged", "Rows without a calibrated model or without input.", "reason")
        self.frames = self._counter("frames", "Frames written by sketch, read by judge and link.", "stage")
        self.rows = self._counter("rows", "Rows written by sketch, read by judge and link.", "stage")
        self.events = self._counter("events", "Events acknowledged by the broker.", "kind")
        self.blocks = self._counter("blocks", "Blocks of state written.")
        self.block_bytes = self._counter("block_bytes", "Bytes of state written.")
        self.damaged = self._counter(
            "damaged_records", "Records of a state topic that are not whole, or not ours.", "topic"
        )
        self.clients = self._gauge("clients", "Clients in memory.")
        self.skipped = self._gauge("skipped_rows", "Rows below a mark since the partition was taken: doubled or late.")
        self.evicted = self._gauge("evicted_clients", "Clients that left for want of room since the partition came.")
        self.windows = self._counter("drift_windows", "Windows of event time closed by link.")
        self.late = self._gauge("drift_late_rows", "Rows too late, or too far ahead, for any window since the start.")
        self.lag = self._gauge("lag", "Records not yet handled.", "topic", "partition")
        self.away = self._gauge("kafka_unavailable_seconds", "For how long Kafka has not answered; 0 while it does.")
        self.recovered = self._gauge("recovered", "1 when every assigned partition has its state.", "stage")
        self.recovery_s = self._gauge("recovery_seconds", "How long the last recovery of state took.")
        self.recovery_bytes = self._gauge("recovery_bytes", "Bytes of state that it read.")
        self.kept = self._gauge("kept_partitions", "Partitions whose state was still good in memory at that time.")

    def render(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"probewatch_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"probewatch_{name}", text, labels, registry=self.registry)
