"""Prometheus metrics of a worker. No label ever holds a client, a prompt or a value."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = self._counter("records", "Raw records read.", "topic")
        self.rejects = self._counter("rejects", "Rows or records sent to the dead-letter topic.", "reason")
        self.unjudged = self._counter(
            "unjudged", "Rows not judged, which only count against their client, and empty records.", "reason"
        )
        self.unread = self._counter("unread", "Fields that could not be read, of rows that are judged.", "field")
        self.frames = self._counter("frames", "Frames written by sketch, or read by judge and link.", "stage")
        self.rows = self._counter("rows", "Rows written by sketch, or read by judge and link.", "stage")
        self.events = self._counter("events", "Events acknowledged by the broker.", "kind")
        self.largest_share = self._gauge(
            "largest_share", "Share of one undeclared client in the last rows of a model that sketch read.", "model"
        )
        self.blocks = self._counter("blocks", "State blocks written.")
        self.block_bytes = self._counter("block_bytes", "State bytes written.")
        self.damaged = self._counter(
            "damaged_records", "Records in a state topic that are damaged or foreign.", "topic"
        )
        self.clients = self._gauge("clients", "Clients in memory.")
        self.skipped = self._gauge("skipped_rows", "Duplicate or late rows skipped since the partition was assigned.")
        self.redelivered = self._gauge(
            "redelivered_rows", "Rows known again by time and input, not counted, since the partition was assigned."
        )
        self.evicted = self._gauge(
            "evicted_clients", "Clients evicted for lack of room since the partition was assigned."
        )
        self.back = self._gauge(
            "rows_back_in_time",
            "Rows more than a minute before the latest time of their client since the partition was assigned.",
        )
        self.split = self._gauge("split_clients_ratio", "Share of clients in several partitions of a raw topic.")
        self.behind_s = self._gauge("source_behind_seconds", "How old one in a hundred records is on arrival.", "topic")
        self.breaker_open = self._gauge(
            "breaker_open", "1 while decisions of this model and level fall back to shadow.", "model", "rung"
        )
        self.windows = self._counter("drift_windows", "Event-time windows closed by link.")
        self.late = self._gauge(
            "drift_late_rows", "Rows not counted since the start: too late, or too far in the future."
        )
        self.lag = self._gauge("lag", "Records not yet processed.", "topic", "partition")
        self.unavailable = self._gauge(
            "kafka_unavailable_seconds", "Seconds since Kafka last responded; 0 while reachable."
        )
        self.stage_ready = self._gauge("stage_ready", "1 when all assigned partitions have their state.", "stage")
        self.recovery_s = self._gauge("recovery_seconds", "Duration of the last state recovery, seconds.")
        self.recovery_bytes = self._gauge("recovery_bytes", "State bytes read by the last recovery.")
        self.kept = self._gauge(
            "kept_partitions", "Partitions whose state in memory was still valid at the last recovery."
        )

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"probewatch_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"probewatch_{name}", text, labels, registry=self.registry)
