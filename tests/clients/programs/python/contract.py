"""What every program here takes and says; tests/clients/README.md has the contract."""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["produce", "consume", "time", "group"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    # Records a second; 0 is as fast as it goes.
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--codec", default="none")
    parser.add_argument("--time", type=int, default=0)
    return parser.parse_args()


def say(**fact: Any) -> None:
    """A line of the answer; it is out after the next `flush`."""
    sys.stdout.write(json.dumps(fact, separators=(",", ":")) + "\n")


def flush() -> None:
    sys.stdout.flush()


def record(partition: int, offset: int, timestamp: int, key: bytes, value: bytes) -> None:
    say(record=[partition, offset, timestamp, key.decode(), value.decode()])


def numbers(options: argparse.Namespace) -> Iterator[int]:
    """The records to write, each when it is due."""
    start = time.monotonic()
    for done, number in enumerate(range(options.first, options.first + options.count)):
        if options.rate:
            time.sleep(max(0.0, start + done / options.rate - time.monotonic()))
        yield number


def pair(number: int) -> tuple[bytes, bytes]:
    """Key and value of a record: every key comes again, no value does."""
    return b"key-%d" % (number % 997), b"value-%d" % number


def asked_to_leave() -> threading.Event:
    """Set by SIGTERM."""
    event = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: event.set())
    return event
