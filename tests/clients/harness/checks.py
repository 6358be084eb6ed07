"""What every client must be able to do, and lose nothing at."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from harness.broker import Broker
from harness.process import Failed, expect, wait_until
from harness.program import Client, Program, Record, pairs

RECORDS = 10_000
PARTITIONS = 4
# A member that died is missed after its session's 6 s; the rest is for a machine that does other things.
REBALANCE_S = 40
READ_S = 60

serial = itertools.count()


def new_topic(what: str) -> str:
    return f"test.{what}.{os.getpid()}.{next(serial)}"


class Stage:
    """The programs of one check, on one topic; what still runs ends with it."""

    def __init__(self, broker: Broker, client: Client, topic: str) -> None:
        self.broker, self.client, self.topic = broker, client, topic
        self.programs: list[Program] = []

    def start(self, command: str, **options: object) -> Program:
        program = Program(self.client, self.broker, command, self.topic, **options)
        self.programs.append(program)
        return program

    def produce(self, first: int, count: int, **options: object) -> Program:
        return self.start("produce", first=first, count=count, **options)

    def read_all(self) -> list[Record]:
        return self.start("consume").finish(READ_S).records


@contextlib.contextmanager
def stage(broker: Broker, client: Client, what: str) -> Iterator[Stage]:
    made = Stage(broker, client, new_topic(what))
    try:
        yield made
    finally:
        for program in made.programs:
            program.kill()


def difference(got: Iterable[Record], wanted: Counter[tuple[str, str]], exactly: bool = True) -> str:
    """What is missing, and, if each is wanted exactly once, what is too much; empty when all is well."""
    have = Counter(record.pair for record in got)
    missing, more = wanted - have, have - wanted
    wrong = []
    if missing:
        wrong.append(f"{missing.total()} are missing, such as {min(missing)}")
    strange = {one for one in more if one not in wanted}
    if strange:
        wrong.append(f"{len(strange)} were never written, such as {min(strange)}")
    if more and exactly:
        wrong.append(f"{more.total()} are too many, such as {min(more)}")
    return "; ".join(wrong)


def every_codec(broker: Broker, client: Client) -> None:
    """10,000 keyed records with every codec there is, read from the start: the same, in order."""
    with stage(broker, client, "codecs") as on:
        share = RECORDS // len(client.codecs)
        for turn, codec in enumerate(client.codecs):
            written = on.produce(turn * share, share, codec=codec).finish()
            expect(written.done == share, f"{codec}: {written.done} of {share} are written")
        records = on.read_all()
        wrong = difference(records, pairs(0, share * len(client.codecs)))
        expect(not wrong, wrong)
        for partition in range(PARTITIONS):
            offsets = [one.offset for one in records if one.partition == partition]
            expect(offsets == list(range(len(offsets))), f"partition {partition}: offsets {offsets[:20]}")
        stray = [one for one in records if one.partition != murmur2_partition(one.key)]
        expect(not stray, f"{len(stray)} stand elsewhere than murmur2 says, such as {stray[:1]}")


def murmur2_partition(key: str) -> int:
    """Where Kafka's default partitioner puts a key."""
    data, scramble, mask = key.encode(), 0x5BD1E995, 0xFFFFFFFF
    hashed = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * scramble & mask
        word = (word ^ word >> 24) * scramble & mask
        hashed = (hashed * scramble & mask) ^ word
    if rest := data[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * scramble & mask
    hashed = (hashed ^ hashed >> 13) * scramble & mask
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % PARTITIONS


def by_time(broker: Broker, client: Client) -> None:
    """The first offset of every partition at or after a time: amid, before and behind all records."""
    with stage(broker, client, "time") as on:
        on.produce(0, 2_000, rate=1_000).finish()
        records = on.read_all()
        stamps = sorted({one.timestamp for one in records})
        expect(len(stamps) > 10, f"only {len(stamps)} moments in {len(records)} records")
        for moment in (stamps[0] - 1_000, stamps[len(stamps) // 2], stamps[-1], stamps[-1] + 10_000):
            wanted = {
                partition: min(
                    (
                        one.offset
                        for one in records
                        if one.partition == partition and one.timestamp >= moment
                    ),
                    default=-1,
                )
                for partition in range(PARTITIONS)
            }
            got = on.start("time", time=moment).finish().offsets
            expect(got == wanted, f"at {moment} of {stamps[0]} to {stamps[-1]}: {got}, not {wanted}")


def balanced(members: list[Program]) -> bool:
    """Each has some, none has what another has, and all is had."""
    owned = [member.assigned or [] for member in members]
    together = sorted(one for own in owned for one in own)
    return all(owned) and together == list(range(PARTITIONS))


def await_balance(members: list[Program]) -> None:
    def told() -> str:
        return ", ".join(f"{member.assigned}" for member in members)

    try:
        wait_until("balance", lambda: balanced(members), REBALANCE_S)
    except AssertionError as error:
        complaints = "\n".join(member.tail() for member in members)
        raise type(error)(f"{len(members)} members have {told()}\n{complaints}") from None


def group_that_changes(broker: Broker, client: Client) -> None:
    """Members come, leave and die while records are written: none is lost, and the group goes on where it was."""
    with stage(broker, client, "group") as on:
        on.produce(0, RECORDS // 2).finish()
        group = f"group-{on.topic}"

        def join() -> Program:
            return on.start("group", group=group)

        first = join()
        await_balance([first])
        writing = on.produce(RECORDS // 2, RECORDS // 2, rate=500)
        second = join()
        await_balance([first, second])
        third = join()
        await_balance([first, second, third])
        second.leave()
        await_balance([first, third])
        third.die()
        await_balance([first])
        writing.finish()
        members = [first, second, third]

        def seen() -> list[Record]:
            return [record for member in members for record in member.records]

        wanted = pairs(0, RECORDS)

        def missing() -> Counter[tuple[str, str]]:
            return wanted - Counter(record.pair for record in seen())

        try:
            first.wait("all is read", lambda: missing().total() <= client.drops, READ_S)
        except Failed as failed:
            raise Failed(f"{difference(seen(), wanted, exactly=False)}; {failed}") from None
        wrong = difference(seen(), wanted - missing(), exactly=False)
        expect(not wrong, wrong)
        # Only what the dead one had read and not committed comes twice; a client's batch is at most 500 a time.
        again = len(seen()) - RECORDS + missing().total()
        first.leave()
        late = join()
        await_balance([late])
        on.produce(RECORDS, 100).finish()
        new = pairs(RECORDS, 100)
        late.wait("what came meanwhile is read", lambda: not new - Counter(r.pair for r in late.records), READ_S)
        late.leave()
        wrong = difference(late.records, new)
        expect(not wrong, f"after all had left and one came back: {wrong}")
        print(f"    {again} of {RECORDS} were read twice")


def killed_broker(broker: Broker, client: Client) -> None:
    """kill -9 of the broker: commits and acknowledged records are there after it, and everybody goes on."""
    with stage(broker, client, "kill") as on:
        half = RECORDS // 2
        group = f"group-{on.topic}"
        on.produce(0, half).finish()
        before = on.start("group", group=group)
        before.wait("the first half is read", lambda: len(before.records) >= half, READ_S)
        before.leave()
        broker.kill()
        broker.start()
        after = on.start("group", group=group)
        await_balance([after])
        if not client.goes_on:
            on.produce(half, half).finish()
            after.wait("the second half is read", lambda: len(after.records) >= half, READ_S)
            wrong = difference(after.leave().records, pairs(half, half))
            expect(not wrong, wrong)
            return
        writing = on.produce(half, half, rate=1_000)
        after.wait("some of the second half is read", lambda: len(after.records) >= half // 4, READ_S)
        broker.kill()
        broker.start()
        writing.finish(120)
        expect(writing.done == half, f"{writing.done} of {half} are acknowledged")
        second = pairs(half, half)
        after.wait("all of the second half is read", lambda: not second - Counter(r.pair for r in after.records), 90)
        after.leave()
        # Commits survive: nothing of the first half comes again.
        wrong = difference(after.records, second, exactly=False)
        expect(not wrong, wrong)
        wrong = difference(on.read_all(), pairs(0, RECORDS), exactly=client.is_idempotent)
        expect(not wrong, f"the log: {wrong}")


Check = Callable[[Broker, Client], None]

CHECKS: dict[str, Check] = {
    "every_codec": every_codec,
    "by_time": by_time,
    "group_that_changes": group_that_changes,
    "killed_broker": killed_broker,
}
