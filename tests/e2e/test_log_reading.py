"""Events read back: while Wardent runs and when it is down, as they come, and one by its id."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rig import Process, RawUpstream, Wardent, request, wait_until, wardent_binary
from rig.apps import answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
NOBODY = 65_534


def client(number: int) -> dict[str, str]:
    return {"CF-Connecting-IP": f"198.51.100.{number}"}


@pytest.fixture
def upstream(rig) -> RawUpstream:
    return rig.raw_upstream(answer(OK))


@pytest.fixture
def wardent(rig, upstream: RawUpstream) -> Wardent:
    policy = {"routes": [{"name": "trap", "match": {"path": "/.env"}, "trap": True}]}
    return rig.wardent(upstream.address, policy=policy)


def found(wardent: Wardent, *conditions: str) -> list[dict[str, Any]]:
    done = wardent.cli("events", "query", *conditions, "--output", "json", deadline_s=30)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask_some(wardent: Wardent) -> list[str]:
    """Four requests; gives their ids when they can be read back."""
    answers = [
        request(wardent.address, "/a/1", headers=client(1)),
        request(wardent.address, "/a/2?secret=1", headers=client(2)),
        request(wardent.address, "/b%1b[2J", headers=client(2)),
        request(wardent.address, "/.env", headers=client(3)),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 403]
    wait_until("all are in the log", lambda: len(found(wardent)) == 4)
    return [answer.headers["x-request-id"] for answer in answers]


def check_all_questions(wardent: Wardent, ids: list[str]) -> None:
    def ids_of(*conditions: str) -> list[str]:
        return [event["id"] for event in found(wardent, *conditions)]

    assert sorted(ids_of()) == sorted(ids)
    assert ids_of("--client", "198.51.100.1") == [ids[0]]
    assert sorted(ids_of("--client", "198.51.100.2/31")) == sorted(ids[1:])
    assert sorted(ids_of("--path", "/a/**")) == sorted(ids[:2])
    assert ids_of("--verdict", "refused", "--reason", "trap") == [ids[3]]
    assert ids_of("--status", "4xx", "--route", "trap", "--method", "GET") == [ids[3]]
    assert ids_of("--id", ids[1].lower()) == [ids[1]]
    assert ids_of("--since", "1h", "--until", "30m") == []
    assert len(ids_of("--since", "1h", "--limit", "2")) == 2
    assert sorted(ids_of("--oldest-first")) == sorted(ids)
    assert found(wardent, "--topic", "audit", "--client", "203.0.113.1") == []
    assert "start" in {event["what"] for event in found(wardent, "--topic", "audit")}


def test_requests_are_found_while_it_runs_and_when_it_is_down(wardent: Wardent) -> None:
    ids = ask_some(wardent)
    check_all_questions(wardent, ids)
    wardent.stop()
    check_all_questions(wardent, ids)
    done = wardent.cli("events", "query")
    assert "wardent does not run" in done.stderr
    # What a client wrote is escaped, for a terminal too.
    assert "\\u001b" not in done.stdout and "%1b[2J" in done.stdout
    assert "secret=1" not in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\n") == 4


def test_one_decision_is_explained_by_its_id(wardent: Wardent) -> None:
    ids = ask_some(wardent)

    def explained(id: str) -> str:
        done = wardent.cli("explain", id)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for _ in range(2):
        assert explained(ids[0]).startswith("passed on; the application answered 200")
        refused = explained(ids[3])
        assert refused.startswith("refused with 403 trap: ")
        assert "198.51.100.3" in refused
        event = json.loads(wardent.cli("explain", ids[3], "--output", "json").stdout)
        assert (event["id"], event["path"]) == (ids[3], "/.env")
        unknown = wardent.cli("explain", "01KAJ0000000000000000000AA")
        assert unknown.returncode == 1
        assert "not in the log" in unknown.stderr
        wardent.stop()
    assert wardent.cli("explain", "x").returncode == 2


def test_tail_shows_the_last_and_then_what_comes(rig, wardent: Wardent) -> None:
    request(wardent.address, "/first", headers=client(1))
    wait_until("it is in the log", lambda: found(wardent))
    command = [
        wardent_binary(),
        *("events", "tail", "-n", "1", "--path", "/**"),
        *("--output", "json", "--config", wardent.config_file),
    ]
    tail = Process("tail", command, rig.directory())
    try:

        def paths() -> list[str]:
            lines = [line for line in tail.text().splitlines() if line.startswith("{")]
            return [json.loads(line)["path"] for line in lines]

        wait_until("the last is shown", lambda: paths() == ["/first"])
        for path in ("/second", "/third"):
            request(wardent.address, path, headers=client(2))
            wait_until(f"{path} is shown", lambda: paths()[-1] == path)
        assert paths() == ["/first", "/second", "/third"]
    finally:
        tail.stop()


def test_topics_are_listed_and_the_log_is_sound(wardent: Wardent) -> None:
    ask_some(wardent)
    for is_running in (True, False):
        topics = json.loads(wardent.cli("log", "topics", "--output", "json").stdout)["topics"]
        by_name = {topic["name"]: topic for topic in topics}
        assert by_name.keys() >= {
            "wardent.http.access",
            "wardent.client.ban",
            "wardent.audit.event",
            "wardent.dead.letter",
            "__consumer_offsets",
            "__wardent_metadata",
            "_schemas",
        }
        partitions = by_name["wardent.http.access"]["partitions"]
        assert sum(part["high_watermark"] for part in partitions) == 4
        assert by_name["wardent.client.ban"].get("durable") == (True if is_running else None)
        assert "wardent.http.access" in wardent.cli("log", "topics").stdout
        done = wardent.cli("log", "verify", "--output", "json", deadline_s=30)
        assert done.returncode == 0, done.stdout + done.stderr
        verified = json.loads(done.stdout)
        assert (verified["wrong"], verified["access"]["events"]) == (0, 4)
        wardent.stop()


def test_verify_finds_a_flipped_byte_and_says_where(wardent: Wardent) -> None:
    ask_some(wardent)
    wardent.stop()
    log = Path(wardent.config["log"]["dir"])
    segments = sorted(log.glob("wardent.http.access-*/*.log"))
    segment = next(file for file in segments if file.stat().st_size)
    flipped = bytearray(segment.read_bytes())
    flipped[100] ^= 1
    segment.write_bytes(flipped)
    done = wardent.cli("log", "verify")
    assert done.returncode == 1
    name = f"{segment.parent.name}/{segment.name}"
    assert f"{name} at byte 0: the batch's checksum does not fit" in done.stdout
    query = wardent.cli("events", "query")
    assert "damaged batches that were passed over: 1" in query.stderr


def test_the_api_is_strict_and_says_what_would_be_right(wardent: Wardent) -> None:
    for target, status, words in [
        ("events?verdict=maybe", 422, "there are passed, refused"),
        ("events?nope=1", 400, "unknown parameter"),
        ("events?limit=0", 422, "from 1 to 1000"),
        ("events?after=x", 422, "`next` of an earlier answer"),
        ("events?wait=1s", 422, "order=oldest"),
        ("events?order=oldest&wait=1h", 422, "at most 20s"),
        ("events?topic=ban&path=/", 422, "have none"),
        ("log/topics?x=1", 400, "unknown parameter"),
        ("log/verify?job=7", 404, "begin another"),
        ("events?client=h:12", 422, "16 hexadecimal digits"),
        ("log/nothing", 404, "/api/v1/log/verify"),
    ]:
        got = wardent.ask_admin(f"/api/v1/{target}")
        assert (got.status, words in got.text) == (status, True), (target, got.text)
    act = request(
        wardent.admin, "/api/v1/log/verify", "POST", {"Host": "localhost"}, b"", timeout_s=5
    )
    assert act.status == 401


def test_misuse_has_a_status_of_its_own_and_no_log_is_told(rig, upstream: RawUpstream) -> None:
    wardent = rig.wardent(upstream.address, start=False)
    misused = wardent.cli("events", "query", "--status", "6xx")
    assert misused.returncode == 2
    assert "4xx" in misused.stderr
    misused = wardent.cli("events", "query", "--status", "6xx", "--output", "json")
    assert misused.returncode == 2
    assert "4xx" in json.loads(misused.stdout)["error"]
    misused = wardent.cli("explain", "01KAJ0000000000000000000AA", "--method", "POST")
    assert misused.returncode == 2
    assert "--method" in misused.stderr
    for command in (["events", "query"], ["log", "verify"], ["events", "tail"]):
        done = wardent.cli(*command)
        assert done.returncode == 1
        assert "no log is there" in done.stderr, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_who_may_not_read_the_log_is_told_who_may(wardent: Wardent) -> None:
    ask_some(wardent)
    wardent.stop()
    log = Path(wardent.config["log"]["dir"])
    log.chmod(0o700)
    for parent in (wardent.directory, wardent.directory.parent):
        parent.chmod(0o755)
    binary = wardent_binary()
    done = subprocess.run(
        [binary, "events", "query", "--config", wardent.config_file],
        capture_output=True,
        text=True,
        user=NOBODY,
        group=NOBODY,
    )
    assert done.returncode == 1
    assert "this user may not read the log" in done.stderr, done.stderr
