"""aiokafka."""

import asyncio
import contextlib
import signal
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from contract import arguments, flush, pair, record, say

CONSUMER = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 500,
}


async def main() -> None:
    options = arguments()
    await {"produce": produce, "consume": consume, "time": time, "group": group}[options.command](
        options
    )
    flush()


async def produce(options: Any) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=options.bootstrap,
        enable_idempotence=True,
        compression_type=None if options.codec == "none" else options.codec,
        linger_ms=5,
        # Also the time that a batch has to be taken, retries and all.
        request_timeout_ms=60_000,
    )
    await producer.start()
    start = asyncio.get_running_loop().time()
    sent = []
    for done in range(options.count):
        if options.rate:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, start + done / options.rate - now))
        key, value = pair(options.first + done)
        sent.append((options.first + done, await producer.send(options.topic, value, key)))
    for number, future in sent:
        told = await future
        say(acked=[number, told.partition, told.offset])
    await producer.stop()
    say(done=options.count)


async def started(options: Any) -> AIOKafkaConsumer:
    """Without a group: it has all partitions."""
    consumer = AIOKafkaConsumer(options.topic, bootstrap_servers=options.bootstrap, **CONSUMER)
    await consumer.start()
    return consumer


async def consume(options: Any) -> None:
    consumer = await started(options)
    every = consumer.assignment()
    starts, ends = await consumer.beginning_offsets(every), await consumer.end_offsets(every)
    await consumer.seek_to_beginning(*every)
    left = {one for one in every if starts[one] < ends[one]}
    count = 0
    while left:
        for partition, messages in (await consumer.getmany(timeout_ms=1_000)).items():
            count += show(messages)
            if messages[-1].offset + 1 >= ends[partition]:
                left.discard(partition)
    await consumer.stop()
    say(done=count)


def show(messages: list[Any]) -> int:
    for one in messages:
        record(one.partition, one.offset, one.timestamp, one.key, one.value)
    return len(messages)


async def time(options: Any) -> None:
    consumer = await started(options)
    every = consumer.assignment()
    found = await consumer.offsets_for_times({one: options.time for one in every})
    for partition, offset in found.items():
        say(offset=[partition.partition, offset.offset if offset else -1])
    say(done=len(every))
    await consumer.stop()


class Told(ConsumerRebalanceListener):  # type: ignore[misc]
    """Says which partitions this member has now."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        say(assigned=sorted(one.partition for one in assigned))
        flush()

    def on_partitions_revoked(self, _: Any) -> None:
        say(assigned=[])
        flush()


async def group(options: Any) -> None:
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=options.bootstrap, group_id=options.group, **CONSUMER
    )
    consumer.subscribe([options.topic], listener=Told())
    await consumer.start()
    while not leaving.is_set():
        batches = await consumer.getmany(timeout_ms=200, max_records=500)
        for messages in batches.values():
            show(messages)
        flush()
        if batches:
            # Refused while the group is being made anew: whoever gets the partition reads it again.
            with contextlib.suppress(KafkaError):
                positions = {one: of[-1].offset + 1 for one, of in batches.items()}
                await consumer.commit(positions)
                say(committed=[[one.partition, at] for one, at in positions.items()])
    await consumer.stop()
    say(left=True)


asyncio.run(main())
