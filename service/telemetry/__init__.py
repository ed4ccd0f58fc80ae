"""What operators are told: logs, metrics and traces."""
