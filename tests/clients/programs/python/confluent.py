"""confluent-kafka: librdkafka as Python sees it."""

import contextlib
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from contract import arguments, asked_to_leave, flush, numbers, pair, record, say

CONSUMER = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 500,
}


def main() -> None:
    options = arguments()
    {"produce": produce, "consume": consume, "time": time, "group": group}[options.command](options)
    flush()


def produce(options: Any) -> None:
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "enable.idempotence": True,
            "compression.type": options.codec,
            # librdkafka's own default would put a key elsewhere than Wardent, Java and all others do.
            "partitioner": "murmur2_random",
            "linger.ms": 5,
        }
    )
    for number in numbers(options):
        key, value = pair(number)

        def told(error: KafkaError | None, message: Message, number: int = number) -> None:
            if error:
                raise KafkaException(error)
            say(acked=[number, message.partition(), message.offset()])

        producer.produce(options.topic, value, key, on_delivery=told)
        producer.poll(0)
    assert producer.flush(60) == 0, "not all acknowledged within 60 s"
    say(done=options.count)


def partitions(consumer: Consumer, topic: str) -> list[int]:
    return sorted(consumer.list_topics(topic, 10).topics[topic].partitions)


def consume(options: Any) -> None:
    consumer = Consumer({**CONSUMER, "bootstrap.servers": options.bootstrap, "group.id": "none"})
    ends = {}
    for partition in partitions(consumer, options.topic):
        low, high = consumer.get_watermark_offsets(TopicPartition(options.topic, partition), 10)
        if low < high:
            ends[partition] = high
    consumer.assign([TopicPartition(options.topic, one, OFFSET_BEGINNING) for one in ends])
    count = 0
    while ends:
        for message in consumer.consume(1_000, 1):
            count += show(message)
            if message.offset() + 1 >= ends.get(message.partition(), message.offset() + 2):
                del ends[message.partition()]
    consumer.close()
    say(done=count)


def show(message: Message) -> int:
    if message.error():
        raise KafkaException(message.error())
    _, timestamp = message.timestamp()
    record(message.partition(), message.offset(), timestamp, message.key(), message.value())
    return 1


def time(options: Any) -> None:
    consumer = Consumer({**CONSUMER, "bootstrap.servers": options.bootstrap, "group.id": "none"})
    asked = [
        TopicPartition(options.topic, one, options.time)
        for one in partitions(consumer, options.topic)
    ]
    for found in consumer.offsets_for_times(asked, 10):
        say(offset=[found.partition, found.offset])
    say(done=len(asked))
    consumer.close()


def group(options: Any) -> None:
    leaving = asked_to_leave()
    consumer = Consumer(
        {**CONSUMER, "bootstrap.servers": options.bootstrap, "group.id": options.group}
    )

    def assigned(_: Consumer, given: list[TopicPartition]) -> None:
        say(assigned=sorted(one.partition for one in given))
        flush()

    def revoked(_: Consumer, __: list[TopicPartition]) -> None:
        say(assigned=[])
        flush()

    consumer.subscribe([options.topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
    while not leaving.is_set():
        messages = [one for one in consumer.consume(500, 0.2) if not passing(one)]
        for message in messages:
            show(message)
        flush()
        if messages:
            # Refused while the group is being made anew: whoever gets the partition reads it again.
            with contextlib.suppress(KafkaException):
                done = consumer.commit(asynchronous=False)
                say(committed=[[one.partition, one.offset] for one in done if one.offset >= 0])
    consumer.close()
    say(left=True)


def passing(message: Message) -> bool:
    """A broker that is away is no end; anything else is."""
    error = message.error()
    return bool(error) and (error.retriable() or error.code() < 0)


main()
