"""The breaker: enforcement falls back to shadow where far more clients are decided on than the certificate promises."""
