"""Writes records and waits for their acknowledgements: `writer.py BOOTSTRAP TOPIC FIRST COUNT RATE`.

Record N has the key `key-<N mod 997>`, a value with N in it, a timestamp of its own, and a header each third time;
one in a hundred has no key, or an empty value. RATE is records a second, 0 for as fast as it goes.
"""

import json
import sys
import time

from confluent_kafka import Producer

# An hour ago: what were days ago, either side might delete for its age.
BEGIN_MS = int(time.time() * 1_000) - 3_600_000
FILL = "x" * 240


def main() -> None:
    bootstrap, topic, *numbers = sys.argv[1:]
    first, count, rate = (int(number) for number in numbers)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    failed: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error:
            failed.append(str(error))

    begin = time.monotonic()
    for number in range(first, first + count):
        value = "" if number % 100 == 1 else json.dumps({"number": number, "fill": FILL})
        while True:
            try:
                producer.produce(
                    topic,
                    key=None if number % 100 == 2 else f"key-{number % 997}",
                    value=value,
                    headers=[("number", str(number)), ("odd \u00e9", None)] if number % 3 == 0 else None,
                    timestamp=BEGIN_MS + number,
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if number % 64 == 0:
            producer.poll(0)
            if rate:
                ahead = (number - first) / rate - (time.monotonic() - begin)
                if ahead > 0.002:
                    time.sleep(ahead)
    producer.flush(60)
    if failed or len(producer):
        raise SystemExit(f"{len(failed)} failed ({failed[:3]}), {len(producer)} are under way")
    print(json.dumps({"done": count}))


main()
