//! What is remembered of idempotent producers.
