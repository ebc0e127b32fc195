"""What running services say: readiness, metrics, logs, evidence."""
