"""The coordinator: services, rounds, tuning, selection, aggregation, storage."""
