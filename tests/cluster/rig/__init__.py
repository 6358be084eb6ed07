"""Three brokers of Apache Kafka on loopback, Wardents with their mirrors beside them, and who reads and writes."""

import sys
from pathlib import Path

# Children, free ports, waits, and what is installed into the cache are those of tests/clients.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients"))
