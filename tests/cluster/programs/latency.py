"""How soon a ban that one node decides bites on another: `latency.py HTTP_A KAFKA_A HTTP_B COUNT`.

Each client walks into a trap on A. A consumer says when the ban can be read in A's log; another thread asks B as that
client until it is refused as banned. A line of JSON: milliseconds from the one to the other, for each client.
"""

import json
import sys
import threading
import time
from http.client import HTTPConnection

from confluent_kafka import Consumer, TopicPartition

DEADLINE_S = 10


def ask(connection: HTTPConnection, path: str, client: str) -> str | None:
    connection.request("GET", path, headers={"CF-Connecting-IP": client, "Host": "www.example.org"})
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("x-wardent-reason")


def main() -> None:
    http_a, kafka_a, http_b, count = sys.argv[1:]
    consumer = Consumer(
        {"bootstrap.servers": kafka_a, "group.id": "latency", "enable.auto.commit": False, "fetch.wait.max.ms": 100}
    )
    end = consumer.get_watermark_offsets(TopicPartition("wardent.client.ban", 0), timeout=10)[1]
    consumer.assign([TopicPartition("wardent.client.ban", 0, end)])
    readable: dict[str, float] = {}
    wanted = threading.Event()

    def read() -> None:
        while not wanted.is_set():
            message = consumer.poll(0.1)
            if message is not None and not message.error():
                readable.setdefault(message.key().decode(), time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    a, b = HTTPConnection(http_a, timeout=10), HTTPConnection(http_b, timeout=10)
    spans = []
    try:
        for number in range(int(count)):
            client = f"203.0.113.{number + 1}"
            ask(a, "/.env", client)
            until = time.monotonic() + DEADLINE_S
            while ask(b, "/", client) != "banned":
                if time.monotonic() > until:
                    raise SystemExit(f"{client} is not banned on the other node within {DEADLINE_S} s")
                time.sleep(0.001)
            bitten = time.monotonic()
            while client not in readable:
                if time.monotonic() > until:
                    raise SystemExit(f"the ban of {client} cannot be read")
                time.sleep(0.001)
            spans.append(round((bitten - readable[client]) * 1_000, 1))
    finally:
        wanted.set()
        reader.join()
    print(json.dumps(spans))


main()
