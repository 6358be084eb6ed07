"""A disk that is full, and two who want the same one: requests go on, bans bind, and it heals by itself.

The disk is a tmpfs of its own, so these need root; without it they are skipped.
"""

import errno
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import RawUpstream, Wardent, records, request, wait_until

MIB = 1024 * 1024
DISK_BYTES = 24 * MIB
CLIENT = {"CF-Connecting-IP": "198.51.100.7"}
ACCESS, BAN = "wardent.http.access", "wardent.client.ban"


def answer(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


@pytest.fixture
def upstream(rig) -> RawUpstream:
    return rig.raw_upstream(answer)


@pytest.fixture
def small_disk(rig) -> Iterator[Path]:
    """An empty file system of 24 MiB."""
    place = rig.directory()
    options = f"size={DISK_BYTES},mode=0750"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> Path:
    """Takes all that is left of the disk."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as out:
        piece = b"x" * 65_536
        while piece:
            try:
                out.write(piece)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                piece = piece[: len(piece) // 2]
    return filler


def on(rig, upstream: RawUpstream, disk: Path) -> Wardent:
    log = {"dir": str(disk / "log"), "disk_max": f"{DISK_BYTES // MIB}MiB"}
    return rig.wardent(upstream.address, config={"log": log})


def ask(wardent: Wardent, path: str = "/", client: dict[str, str] = CLIENT) -> int:
    return request(wardent.address, path, headers=client).status


def ban(wardent: Wardent, target: str) -> tuple[int, str]:
    wanted = json.dumps({"target": target, "for": "1h", "why": "test"}).encode()
    socket_file = str(wardent.directory / "admin.sock")
    got = request(socket_file, "/api/v1/bans", "POST", {"Host": "localhost"}, wanted, timeout_s=30)
    return got.status, got.text


def state(wardent: Wardent) -> dict:
    return json.loads(wardent.ask_admin("/readyz").body)["log"]


def found(wardent: Wardent, path: str) -> bool:
    """Whether a request for `path` can be read back."""
    done = wardent.cli("events", "query", "--path", path, "--output", "json")
    return path in done.stdout


def test_a_full_disk_stops_no_request_and_no_ban_and_heals(
    rig, upstream: RawUpstream, small_disk: Path
) -> None:
    wardent = on(rig, upstream, small_disk)
    assert ask(wardent, "/before") == 200
    wait_until("it is in the log", lambda: found(wardent, "/before"))
    filler = fill(small_disk)

    def asked_until_it_is_seen() -> bool:
        assert ask(wardent, "/while-full") == 200
        return state(wardent)["state"] != "ok"

    wait_until("the log says that it is full", asked_until_it_is_seen)
    assert wardent.ask_admin("/readyz").status == 200
    assert wardent.ask_admin("/livez").status == 200
    # The ballast is there for this.
    status, text = ban(wardent, "198.51.100.66")
    assert status == 201, text
    assert ask(wardent, "/", {"CF-Connecting-IP": "198.51.100.66"}) == 403

    filler.unlink()

    def asked_until_it_is_well() -> bool:
        assert ask(wardent, "/after") == 200
        return state(wardent)["state"] == "ok"

    wait_until("the log is well again", asked_until_it_is_well, deadline_s=40)
    wait_until("what comes now is in the log", lambda: found(wardent, "/after"))
    wardent.stop()
    bans = {record.key: record.value["state"] for record in records(small_disk / "log", BAN)}
    assert bans == {"198.51.100.66": "banned"}
    assert records(small_disk / "log", ACCESS)


def test_a_ban_survives_a_kill_on_a_full_disk(
    rig, upstream: RawUpstream, small_disk: Path
) -> None:
    wardent = on(rig, upstream, small_disk)
    fill(small_disk)
    status, text = ban(wardent, "198.51.100.66")
    assert status == 201, text
    wardent.running.signal(signal.SIGKILL)
    wardent.running.wait()
    wardent.start()
    assert ask(wardent, "/", {"CF-Connecting-IP": "198.51.100.66"}) == 403


def test_a_directory_is_one_processes_alone(rig, upstream: RawUpstream) -> None:
    first = rig.wardent(upstream.address)
    directory = first.config["log"]["dir"]
    second = rig.wardent(upstream.address, start=False, config={"log": {"dir": directory}})
    done = second.cli("run", deadline_s=30)
    assert done.returncode == os.EX_TEMPFAIL
    assert f"{directory} is locked by pid {first.running.pid}" in done.stderr
    assert ask(first) == 200


def test_what_was_answered_last_is_in_the_log_after_a_stop(rig, upstream: RawUpstream) -> None:
    wardent = rig.wardent(upstream.address)
    for number in range(100):
        assert ask(wardent, f"/number/{number}") == 200
    wardent.running.signal(signal.SIGTERM)
    assert wardent.running.wait() == 0
    log = Path(wardent.config["log"]["dir"])
    paths = [record.value["path"] for record in records(log, ACCESS)]
    assert sorted(paths) == sorted(f"/number/{number}" for number in range(100))
    assert (log / ".kafka_cleanshutdown").exists()
