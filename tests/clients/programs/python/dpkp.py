"""kafka-python, from 2.0.2 of 2020 on."""

import contextlib
import inspect
from typing import Any

import kafka
from contract import arguments, asked_to_leave, flush, numbers, pair, record, say
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

CONSUMER = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 500,
}
KNOWS_IDEMPOTENCE = "enable_idempotence" in KafkaProducer.DEFAULT_CONFIG


def main() -> None:
    options = arguments()
    {"produce": produce, "consume": consume, "time": time, "group": group}[options.command](options)
    flush()


def produce(options: Any) -> None:
    extra = {"enable_idempotence": True} if KNOWS_IDEMPOTENCE else {}
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap,
        compression_type=None if options.codec == "none" else options.codec,
        acks="all",
        retries=1_000,
        linger_ms=5,
        max_in_flight_requests_per_connection=1,
        **extra,
    )
    sent = []
    for number in numbers(options):
        key, value = pair(number)
        sent.append((number, producer.send(options.topic, value, key)))
    for number, future in sent:
        told = future.get(60)
        say(acked=[number, told.partition, told.offset])
    producer.close()
    say(done=options.count)


def all_partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, one) for one in sorted(consumer.partitions_for_topic(topic))]


def consume(options: Any) -> None:
    consumer = KafkaConsumer(bootstrap_servers=options.bootstrap, **CONSUMER)
    every = all_partitions(consumer, options.topic)
    consumer.assign(every)
    starts, ends = consumer.beginning_offsets(every), consumer.end_offsets(every)
    consumer.seek_to_beginning(*every)
    left = {one for one in every if starts[one] < ends[one]}
    count = 0
    while left:
        for partition, messages in consumer.poll(1_000, 1_000).items():
            count += show(messages)
            if messages[-1].offset + 1 >= ends[partition]:
                left.discard(partition)
    consumer.close()
    say(done=count)


def show(messages: list[Any]) -> int:
    for one in messages:
        record(one.partition, one.offset, one.timestamp, one.key, one.value)
    return len(messages)


def time(options: Any) -> None:
    consumer = KafkaConsumer(bootstrap_servers=options.bootstrap, **CONSUMER)
    every = all_partitions(consumer, options.topic)
    found = consumer.offsets_for_times({one: options.time for one in every})
    for partition, offset in found.items():
        say(offset=[partition.partition, offset.offset if offset else -1])
    say(done=len(every))
    consumer.close()


class Told(ConsumerRebalanceListener):  # type: ignore[misc]
    """Says which partitions this member has now."""

    def __init__(self) -> None:
        self.own: set[int] = set()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.own |= {one.partition for one in assigned}
        self.tell()

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.own -= {one.partition for one in revoked}
        self.tell()

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)

    def tell(self) -> None:
        say(assigned=sorted(self.own))
        flush()


def group(options: Any) -> None:
    leaving = asked_to_leave()
    consumer = KafkaConsumer(
        bootstrap_servers=options.bootstrap, group_id=options.group, **CONSUMER
    )
    consumer.subscribe([options.topic], listener=Told())
    while not leaving.is_set():
        batches = consumer.poll(200, 500)
        for messages in batches.values():
            show(messages)
        flush()
        if batches:
            # Refused while the group is being made anew: whoever gets the partition reads it again.
            with contextlib.suppress(KafkaError):
                consumer.commit()
                say(committed=[[one.partition, of[-1].offset + 1] for one, of in batches.items()])
    # 2.0.2 knows no timeout here.
    takes = inspect.signature(consumer.close).parameters
    consumer.close(**({"timeout_ms": 5_000} if "timeout_ms" in takes else {}))
    say(left=True)


assert kafka.__version__, "kafka-python is installed"
main()
