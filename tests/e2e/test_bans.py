"""A flood through nginx: limited, then banned, while everybody else feels nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig import Connection, Gunicorn, Nginx, Wardent, request, wait_until

# The promise is a second; the rest is for a machine that runs other tests, too.
WITHIN_S = 2.0
FLOODER = {"CF-Connecting-IP": "198.51.100.66"}
BURST, THRESHOLD = 20, 10
POLICY = {
    "defaults": {"limit": {"rate": "1/h", "burst": BURST}},
    "bans": {"threshold": THRESHOLD, "window": "60s", "duration": "10m"},
}


@contextmanager
def asking(nginx: Nginx, clients: list[str], target: str) -> Iterator[list[int]]:
    """Meanwhile each client keeps asking, on a connection of its own; gives what they got."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask(client: str) -> None:
        connection = Connection(nginx.address)
        headers = {"CF-Connecting-IP": client}
        try:
            while not stop.is_set():
                statuses.append(connection.ask("GET", target, headers).status)
        except Exception:
            # No answer is worse than any.
            statuses.append(0)
            raise
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        wait_until("all are asking", lambda: len(statuses) >= 5 * len(clients))
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def page(repository: Path, code: int) -> bytes:
    return (repository / "nginx" / "pages" / f"{code}.html").read_bytes()


@pytest.fixture
def wardent(rig, django_app: Gunicorn) -> Wardent:
    # Who behaves has a limit of its own that it does not reach.
    quiet = {"name": "quiet", "match": {"path": "/echo"}}
    free = {**quiet, "limit": {"rate": "100000/s", "burst": 100_000}}
    return rig.wardent(django_app.address, policy={**POLICY, "routes": [free]})


@pytest.fixture
def nginx(rig, wardent: Wardent) -> Nginx:
    return rig.nginx(wardent.address)


def test_a_flood_is_limited_then_banned_and_nobody_else_feels_it(
    nginx: Nginx, wardent: Wardent, repository: Path
) -> None:
    others = [f"198.51.100.{number}" for number in range(1, 5)]
    with asking(nginx, others, "/echo") as statuses:
        connection = Connection(nginx.address)
        answers = []
        while not answers or answers[-1].status != 403:
            answers.append(connection.ask("GET", "/", FLOODER))
            assert len(answers) < 1_000, "never banned"
        before = len(statuses)
        wait_until(
            "the others go on", lambda: len(statuses) > before + 10 * len(others)
        )
    assert set(statuses) == {200}

    codes = [answer.status for answer in answers]
    assert codes[:BURST] == [200] * BURST
    limited = answers[BURST:-1]
    # The ban binds a moment after the violation that is its cause.
    assert len(limited) >= THRESHOLD
    assert {(answer.status, answer.body) for answer in limited} == {
        (429, page(repository, 429))
    }
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in limited)
    assert answers[-1].body == page(repository, 403)

    shown = wardent.cli("bans", "show", FLOODER["CF-Connecting-IP"], "--output=json")
    assert shown.returncode == 0, shown.stderr
    ban = json.loads(shown.stdout)
    assert (ban["why"], ban["by"], ban["level"]) == ("rate_limited", "policy", 1)
    # Its evidence are the very requests that nginx was answered with 429.
    seen = [answer.headers["X-Request-ID"] for answer in limited]
    assert [one["id"] for one in ban["evidence"]] == seen[:THRESHOLD]

    assert wardent.cli("bans", "remove", ban["target"]).returncode == 0
    got = request(nginx.address, "/echo", headers=FLOODER)
    assert got.status == 200, "free at once"


def test_an_operators_ban_holds_at_once(
    nginx: Nginx, wardent: Wardent, repository: Path
) -> None:
    added = wardent.cli("bans", "add", "203.0.113.0/24", "--for", "1h", "--why", "test")
    assert added.returncode == 0, added.stderr
    got = request(nginx.address, headers={"CF-Connecting-IP": "203.0.113.9"})
    assert (got.status, got.body) == (403, page(repository, 403))
    # And holds for nobody nearby.
    got = request(nginx.address, headers={"CF-Connecting-IP": "203.0.114.9"})
    assert got.status == 200
    told = wardent.cli("explain", "--ip", "203.0.113.9", "--path", "/")
    assert told.stdout.startswith("refused with 403 banned"), told


def test_an_edit_under_load_changes_the_limit_and_fails_no_request(
    nginx: Nginx, wardent: Wardent
) -> None:
    def policy(limit: dict[str, object]) -> dict[str, object]:
        edited = {"name": "edited", "match": {"path": "/edited"}, "limit": limit}
        free = {"limit": {"rate": "100000/s", "burst": 100_000}}
        return {"defaults": free, "routes": [edited]}

    wide: dict[str, object] = {"rate": "100000/s", "burst": 100_000}
    narrow: dict[str, object] = {"rate": "1/h", "burst": 1}

    def limited() -> bool:
        headers = {"CF-Connecting-IP": "198.51.100.77"}
        return request(nginx.address, "/edited", headers=headers).status == 429

    wardent.write_policy(policy(wide))
    assert wardent.cli("reload").returncode == 0
    others = [f"198.51.100.{number}" for number in range(1, 5)]
    with asking(nginx, others, "/echo") as statuses:
        for _ in range(3):
            assert not limited()
            wardent.write_policy(policy(narrow))
            wait_until("the limit is narrow", limited, WITHIN_S)
            wardent.write_policy(policy(wide))
            wait_until("the limit is wide", lambda: not limited(), WITHIN_S)
    assert set(statuses) == {200}
