"""All checks by name, in the order in which they run."""

from __future__ import annotations

import functools
from collections.abc import Callable

from harness.broker import Broker
from harness.checks import CHECKS
from harness.program import CLIENTS


def checks(short: bool) -> dict[str, Callable[[Broker], None]]:
    """`client:check`; of the short form only those that a few minutes suffice for."""
    found: dict[str, Callable[[Broker], None]] = {}
    for client in CLIENTS:
        if client.is_short or not short:
            for name, check in CHECKS.items():
                found[f"{client.name}:{name}"] = functools.partial(check, client=client)
    return found
