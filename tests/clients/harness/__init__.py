"""Foreign clients and their suites against a broker: Wardent, or Apache Kafka as the reference."""
