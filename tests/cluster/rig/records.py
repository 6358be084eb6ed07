"""Who writes to a listener and reads it back, and how both sides are compared."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from harness import install
from harness.process import Child, expect

PROGRAMS = Path(__file__).resolve().parent.parent / "programs"


class Record(NamedTuple):
    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str | None], ...]

    def origin(self) -> tuple[str, int, int]:
        """The node, partition and offset that the mirror's headers name."""
        told = dict(self.headers[-3:])
        expect(
            list(told) == ["wardent.node", "wardent.partition", "wardent.offset"],
            f"headers of {self.partition}/{self.offset}: {self.headers}",
        )
        return str(told["wardent.node"]), int(str(told["wardent.partition"])), int(str(told["wardent.offset"]))


def read(bootstrap: str, topic: str, seconds: int = 300) -> list[Record]:
    """All there is of a topic now, as who reads committed records sees it."""
    command = [install.python("confluent-kafka"), PROGRAMS / "reader.py", bootstrap, topic]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    expect(done.returncode == 0, f"the reader of {topic}: {done.stderr[-800:]}")
    *lines, last = done.stdout.splitlines()
    expect(json.loads(last) == {"done": len(lines)}, f"the reader of {topic} stopped early")
    records = []
    for line in lines:
        *place, key, value, headers = json.loads(line)
        records.append(Record(*place, key, value, tuple((name, value) for name, value in headers)))
    return records


def write(bootstrap: str, topic: str, first: int, count: int, rate: int = 0, seconds: int = 300) -> None:
    """Writes so many records from number `first` on; all are acknowledged."""
    command = [install.python("confluent-kafka"), PROGRAMS / "writer.py", bootstrap, topic]
    numbers = [str(number) for number in (first, count, rate)]
    done = subprocess.run([*command, *numbers], capture_output=True, text=True, timeout=seconds, check=False)
    expect(done.returncode == 0, f"the writer of {topic}: {done.stdout[-400:]}{done.stderr[-800:]}")


def writing(bootstrap: str, topic: str, first: int, count: int, rate: int, output: Path) -> Child:
    """The same, beside what else happens."""
    command = [install.python("confluent-kafka"), PROGRAMS / "writer.py", bootstrap, topic]
    return Child([*command, *(str(number) for number in (first, count, rate))], output)


def compare(source: list[Record], node: str, target: list[Record], once: bool) -> int:
    """Every record of the source is there, in its partition, in order, with its key, value, timestamp and headers;
    with `once`, once. Returns how many are there again."""
    wanted = {(node, record.partition, record.offset): record for record in source}
    seen: Counter[tuple[str, int, int]] = Counter()
    firsts: dict[int, int] = {}
    for record in target:
        origin = record.origin()
        if origin[0] != node:
            continue
        expect(origin in wanted, f"{origin} is not in the log of {node}")
        original = wanted[origin]
        expect(record.partition == original.partition, f"{origin} is in partition {record.partition}")
        same = (record.timestamp, record.key, record.value, record.headers[:-3])
        expect(same == (original.timestamp, original.key, original.value, original.headers), f"{origin}: {same}")
        if not seen[origin]:
            before = firsts.get(record.partition, -1)
            expect(original.offset > before, f"{origin} comes after {before}")
            firsts[record.partition] = original.offset
        seen[origin] += 1
    missing = [origin for origin in wanted if origin not in seen]
    expect(not missing, f"{len(missing)} of {len(wanted)} are missing: {missing[:5]}")
    again = sum(seen.values()) - len(seen)
    expect(not (once and again), f"{again} of {len(wanted)} are there more than once")
    return again
