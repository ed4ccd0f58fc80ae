"""Programs that run next to the service: the benchmark, its load generator and the Kafka consumer."""
