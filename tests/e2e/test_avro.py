"""`log.avro`: fastavro reads what Wardent writes, by the schemas that its registry serves."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rig import Wardent, request, wait_until
from rig.apps import answer
from rig.log import batches, partitions, segments

fastavro = pytest.importorskip("fastavro")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
TOPICS = ["wardent.http.access", "wardent.client.ban", "wardent.audit.event"]


def values(wardent: Wardent, topic: str) -> list[bytes]:
    log = Path(wardent.config["log"]["dir"])
    files = [file for partition in partitions(log, topic) for file in segments(partition)]
    return [record.value for file in files for batch in batches(file) for record in batch]


def read(wardent: Wardent, value: bytes) -> dict[str, Any]:
    assert value[0] == 0, value
    served = wardent.ask_admin(f"/schemas/ids/{int.from_bytes(value[1:5], 'big')}")
    assert served.status == 200, served
    schema = fastavro.parse_schema(json.loads(json.loads(served.body)["schema"]))
    body = io.BytesIO(value[5:])
    event = fastavro.schemaless_reader(body, schema)
    assert not body.read(), "something follows the event"
    return event


def as_told(event: dict[str, Any]) -> dict[str, Any]:
    """The event as its JSON has it: nothing that is null, moments as RFC 3339 spells them."""

    def told(value: Any) -> Any:
        match value:
            case dict():
                return as_told(value)
            case list():
                return [told(one) for one in value]
            case datetime():
                text = value.astimezone(UTC).isoformat(timespec="milliseconds")
                return text.replace("+00:00", "Z")
            case _:
                return value

    return {name: told(value) for name, value in event.items() if value is not None}


def test_fastavro_reads_the_events_that_the_command_shows(rig) -> None:
    upstream = rig.raw_upstream(answer(OK))
    wardent = rig.wardent(upstream.address, config={"log": {"avro": TOPICS}})
    for number in range(5):
        headers = {"CF-Connecting-IP": f"198.51.100.{number}", "User-Agent": 'a "quoted" \\ one'}
        assert request(wardent.address, f"/%c3%a9/{number}", headers=headers).status == 200
    assert wardent.cli("bans", "add", "192.0.2.7", "--for", "1h", "--why", "Grüße").returncode == 0

    def found(topic: str) -> list[dict[str, Any]]:
        done = wardent.cli("events", "query", "--topic", topic, "--oldest-first", "--output", "json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    wait_until("all are in the log", lambda: len(found("access")) == 5)
    for word, topic in zip(["access", "ban", "audit"], TOPICS, strict=True):
        events = [as_told(read(wardent, value)) for value in values(wardent, topic)]
        by_text = sorted(events, key=lambda event: json.dumps(event, sort_keys=True))
        shown = sorted(found(word), key=lambda event: json.dumps(event, sort_keys=True))
        assert events and by_text == shown
