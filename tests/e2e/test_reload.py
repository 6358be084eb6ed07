"""A policy edit takes effect within a second, whole or not at all."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Connection, Gunicorn, Wardent, request, wait_until

CLIENT = {"CF-Connecting-IP": "198.51.100.7"}
# The promise is a second; the rest is for a machine that runs other tests, too.
WITHIN_S = 2.0
SMALL = {"defaults": {"body": "1KiB"}}


@pytest.fixture
def wardent(rig, django_app: Gunicorn) -> Wardent:
    return rig.wardent(django_app.address)


def post(wardent: Wardent) -> int:
    """What a body of 2 KiB is answered."""
    return request(wardent.address, "/upload/", "POST", CLIENT, b"x" * 2048).status


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def renamed_over(file: Path, text: str) -> None:
    new = file.with_name("new.yaml")
    new.write_text(text)
    os.replace(new, file)


def appended_in_pieces(file: Path, text: str) -> None:
    """As a slow editor does: for a moment the file is empty, then half of it is there."""
    with file.open("w") as opened:
        for line in text.splitlines(keepends=True):
            opened.write(line)
            opened.flush()


def link_swapped(file: Path, text: str) -> None:
    """As configuration management and Kubernetes do: the name is a link, and points elsewhere."""
    target = file.with_name(f"policy-{time.monotonic_ns()}.yaml")
    target.write_text(text)
    link = file.with_name("link")
    link.symlink_to(target.name)
    os.replace(link, file)


WAYS = [in_place, renamed_over, appended_in_pieces, link_swapped]


def takes_effect(wardent: Wardent, code: int) -> None:
    wait_until(f"2 KiB get {code}", lambda: post(wardent) == code, WITHIN_S)


@pytest.mark.parametrize("write", WAYS, ids=lambda way: way.__name__)
def test_an_edit_bites_within_a_second(
    wardent: Wardent, write: Callable[[Path, str], None]
) -> None:
    assert post(wardent) == 200
    for _ in range(2):
        write(wardent.policy_file, wardent.policy_text(SMALL))
        takes_effect(wardent, 413)
        write(wardent.policy_file, wardent.policy_text({}))
        takes_effect(wardent, 200)


BROKEN = {
    "not yaml": ("defaults: {body: 1KiB\n", ""),
    "unknown key": ("mode: enforce\ndefalts: {body: 1KiB}\n", "policy.yaml:2:1"),
    "bad value": ("mode: enforce\ndefaults:\n  body: lots\n", "policy.yaml:3:9"),
    "empty": ("", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_edit_changes_nothing_and_says_where(
    wardent: Wardent, name: str
) -> None:
    text, place = BROKEN[name]
    wardent.write_policy(SMALL)
    takes_effect(wardent, 413)
    wardent.policy_file.write_text(text)
    wait_until(
        "the log says what is wrong",
        lambda: (place or "policy.yaml") in wardent.output(),
        WITHIN_S,
    )
    assert post(wardent) == 413
    # And a good one after it is taken.
    wardent.write_policy({})
    takes_effect(wardent, 200)


def test_the_command_loads_and_says_so(wardent: Wardent) -> None:
    wardent.write_policy(SMALL)
    done = wardent.cli("reload")
    assert done.returncode == 0, done.stderr
    # When it returns, it is done.
    assert post(wardent) == 413


def test_the_command_fails_on_a_broken_policy(wardent: Wardent) -> None:
    wardent.policy_file.write_text("mode: enforce\ndefalts: {}\n")
    done = wardent.cli("reload")
    assert done.returncode not in (0, 2)
    said = done.stdout + done.stderr
    assert "policy.yaml:2:1" in said
    assert "defalts" in said
    assert post(wardent) == 200


def test_sighup_loads(wardent: Wardent) -> None:
    wardent.write_policy(SMALL)
    wardent.running.signal(signal.SIGHUP)
    takes_effect(wardent, 413)


def test_limits_survive_a_reload(rig, django_app: Gunicorn) -> None:
    limited = {"defaults": {"limit": {"rate": "1/h", "burst": 3}}}
    wardent = rig.wardent(django_app.address, policy=limited)

    def ask() -> int:
        return request(wardent.address, headers=CLIENT).status

    assert [ask() for _ in range(4)] == [200, 200, 200, 429]
    wardent.write_policy({**limited, "deny": ["203.0.113.0/24"]})
    assert wardent.cli("reload").returncode == 0
    assert ask() == 429


def test_a_storm_of_reloads_breaks_no_request(wardent: Wardent) -> None:
    connection = Connection(wardent.address)
    for number in range(200):
        if number % 4 == 0:
            wardent.write_policy({"defaults": {"body": f"{1 + number}MiB"}})
        wardent.running.signal(signal.SIGHUP)
        assert connection.ask("POST", "/upload/", CLIENT, b"x").status == 200
    wardent.write_policy(SMALL)
    takes_effect(wardent, 413)
