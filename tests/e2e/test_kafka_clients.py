"""Foreign Kafka clients at the log: the short form of tests/clients, whose README says what each check asks.

A client that cannot be installed here is skipped.
"""

from collections.abc import Iterator

import pytest
from harness import catalogue
from harness.broker import Broker, Wardent
from harness.process import Missing


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    made = Wardent()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", catalogue.checks(short=True))
def test_a_client(broker: Broker, name: str) -> None:
    try:
        catalogue.checks(short=True)[name](broker)
    except Missing as missing:
        pytest.skip(str(missing))
    finally:
        # A broker that a check has left dead costs only that check.
        if broker.child and broker.child.child.poll() is not None:
            broker.start()
