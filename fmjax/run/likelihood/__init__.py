"""The likelihood command: the log-density of a run's data under its flow."""
