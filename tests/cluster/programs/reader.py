"""Reads a topic from its start to where it ends now, as who reads committed records: `reader.py BOOTSTRAP TOPIC`.

A line of JSON for each record: [partition, offset, timestamp, key, value, headers]; what is no text, as it is in
Latin-1, so that every byte is told. The last line is the count.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition


def text(part: bytes | None) -> str | None:
    return None if part is None else part.decode("latin-1")


def main() -> None:
    bootstrap, topic = sys.argv[1:]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reads-once",
            "enable.auto.commit": False,
            # What is gone is an error, and not nothing.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "check.crcs": True,
        }
    )
    metadata = consumer.list_topics(topic, timeout=30)
    partitions = sorted(metadata.topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_, count = set(partitions), 0
    while open_:
        for message in consumer.consume(5_000, timeout=1.0):
            error = message.error()
            if error and error.name() == "_PARTITION_EOF":
                open_.discard(message.partition())
                continue
            if error:
                raise SystemExit(str(error))
            headers = [[name, text(value)] for name, value in message.headers() or []]
            place = [message.partition(), message.offset(), message.timestamp()[1]]
            print(json.dumps([*place, text(message.key()), text(message.value()), headers]))
            count += 1
    print(json.dumps({"done": count}), flush=True)


main()
