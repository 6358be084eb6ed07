"""The log's directory as a stranger reads it: kafka-python's record reader, over the files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.record import MemoryRecords


@dataclass(frozen=True)
class Record:
    """One record of one partition."""

    partition: str
    offset: int
    timestamp_ms: int
    key: str | None
    value: Any


def partitions(log: Path, topic: str) -> list[Path]:
    """The directories of a topic, `<topic>-<number>`."""
    found = [path for path in log.iterdir() if path.name.rpartition("-")[0] == topic]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def segments(partition: Path) -> list[Path]:
    """Its segments, oldest first. Their names are their first offsets."""
    found = sorted(partition.glob("*.log"))
    assert all(len(path.stem) == 20 and path.stem.isdecimal() for path in found), found
    return found


def batches(segment: Path, whole: bool = True) -> Iterator[Any]:
    """All batches of a segment, each with its checksum looked at; to the last byte, if it is `whole`."""
    data = segment.read_bytes()
    reader, at = MemoryRecords(data), 0
    while reader.has_next():
        batch = reader.next_batch()
        assert batch.validate_crc(), f"{segment}: wrong CRC at byte {at}"
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        yield batch
    assert not whole or at == len(data), f"{segment}: {len(data) - at} bytes are no batch"


def records(log: Path, topic: str, whole: bool = True) -> list[Record]:
    """Everything in a topic, partition by partition.

    Offsets count up from each partition's first, without hole or repetition; `whole` also asks that
    nothing but batches stands in the files, as after a clean stop or a recovery.
    """
    found = []
    for partition in partitions(log, topic):
        expected: int | None = None
        for segment in segments(partition):
            expected = int(segment.stem) if expected is None else expected
            assert expected == int(segment.stem), f"{segment} does not go on at {expected}"
            for batch in batches(segment, whole):
                for record in batch:
                    assert record.offset == expected, f"{segment}: {record.offset}, not {expected}"
                    expected += 1
                    found.append(of(partition.name, record))
    return found


def of(partition: str, record: Any) -> Record:
    """What Wardent writes: a key that is text, a value that is JSON, or none."""
    return Record(
        partition,
        record.offset,
        record.timestamp,
        None if record.key is None else record.key.decode(),
        None if record.value is None else json.loads(record.value),
    )
