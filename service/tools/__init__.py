"""Programs beside the service: benchmark, load and the Kafka consumer."""
