"""All checks by name, in the order in which they run."""

from __future__ import annotations

import functools
from collections.abc import Callable

from harness import pages, suites, tools
from harness.broker import Broker
from harness.checks import CHECKS
from harness.program import CLIENTS

Checks = dict[str, Callable[[Broker], None]]


def checks(short: bool) -> Checks:
    """`client:check`; of the short form only those that a few minutes suffice for."""
    found: Checks = {"kcat:features": tools.kcat_features, "kcat:listing": tools.kcat_listing}
    for client in CLIENTS:
        if client.is_short or not short:
            for name, check in CHECKS.items():
                found[f"{client.name}:{name}"] = functools.partial(check, client=client)
    quick = ("kcat", "confluent-kafka", "kafka-python")
    found |= {f"docs:{name}": check for name, check in pages.CHECKS.items() if name in quick or not short}
    if short:
        found["librdkafka:short"] = suites.short_librdkafka
        return found
    found |= {f"tools:{name}": check for name, check in tools.CONSOLE.items()}
    found["librdkafka:suite"] = suites.librdkafka
    for version in ("2.3.0", "3.0.12"):
        found[f"kafka-python-{version}:suite"] = functools.partial(
            suites.kafka_python, version=version
        )
    found["franz-go:suite"] = suites.franz_go
    return found
