"""Fields in which many clients began to send what fitted history did not have: news about the population."""
