"""`wardent-deploy` in a machine with systemd, nginx and Django, while requests come: none is refused, whatever it is given."""

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import Machine, wait_until
from rig.machine import ADDRESS

URL = "http://shop.test/healthz"
DEPLOY = f"wardent-deploy --soak 2s --url {URL}"
DROP_IN = "/etc/systemd/system/wardent.service.d/deploy.conf"

CONFIG = """
listen: [127.0.0.1:8080]
upstream: {servers: [127.0.0.1:8000]}
client_ip: {header: x-real-ip}
policy: policy.yaml
"""
POLICY = """
mode: enforce
defaults: {limit: {rate: 100000/s, burst: 100000}}
"""
# Another application than the one that is there.
BROKEN = CONFIG.replace("8000", "7999") + "log: {dir: /var/lib/wardent/log}\n"
SITE = """
server {
    listen 80;
    server_name shop.test;
    include wardent/snippets/proxy.conf;
    location / { proxy_pass http://wardent; }
}
"""


@pytest.fixture(scope="module")
def shop(machine: Machine, package: Path, repository: Path) -> Machine:
    """A shop behind nginx and the packaged Wardent."""
    machine.write("/etc/wardent/wardent.yaml", CONFIG)
    machine.write("/etc/wardent/policy.yaml", POLICY)
    machine.write("/etc/wardent/broken.yaml", BROKEN)
    machine.write("/etc/nginx/sites-enabled/default", SITE)
    site = repository / "examples" / "django"
    gunicorn = f"{sys.executable} -m gunicorn --worker-class gthread --threads 8"
    machine.run(
        f"""
        export DEBIAN_FRONTEND=noninteractive
        dpkg --force-confold -i {package}
        chgrp wardent /etc/wardent/*.yaml && chmod 640 /etc/wardent/*.yaml
        cp -r /usr/share/wardent/nginx /etc/nginx/wardent
        ln -s ../wardent/wardent.conf /etc/nginx/conf.d/wardent.conf
        echo '{ADDRESS} shop.test' >> /etc/hosts
        systemd-run --unit shop --property WorkingDirectory={site} {gunicorn} --bind 127.0.0.1:8000 shop.wsgi
        systemctl enable --now wardent.socket wardent.service
        systemctl restart nginx
        """
    )
    wait_until("the shop is open", lambda: status(machine) == "200")
    return machine


def status(machine: Machine) -> str:
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' {URL}"
    return machine.run(ask, check=False).stdout


class Load:
    """Requests through nginx and past it."""

    def __init__(self, machine: Machine) -> None:
        script = Path(__file__).parent / "rig" / "load.py"
        self.running = [
            subprocess.Popen(
                machine.command(sys.executable, script, url, "4"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for url in (URL, "http://127.0.0.1:8080/healthz")
        ]

    def end(self) -> list[dict[str, Any]]:
        return [json.loads(each.communicate(timeout=90)[0]) for each in self.running]


@contextlib.contextmanager
def load(machine: Machine) -> Iterator[None]:
    """Load as long as the body lasts; every request of it must be answered by the application."""
    load = Load(machine)
    try:
        yield
    finally:
        found = load.end()
    print(found)
    for each in found:
        assert each["wrong"] == 0, found
        assert each["count"] > 10, found


def deploy(machine: Machine, what: str) -> subprocess.CompletedProcess[str]:
    return machine.run(f"{DEPLOY} {what}", check=False, deadline_s=120)


def new_binary(machine: Machine, name: str) -> str:
    """Another binary that does the same."""
    path = f"/root/{name}"
    machine.run(f"cp /usr/bin/wardent {path}; echo {name} >> {path}")
    return path


def bad_binary(machine: Machine, name: str, script: str) -> str:
    """One that does what `script` says, and what it leaves as Wardent does."""
    path = f"/root/{name}"
    text = f'#!/bin/sh\n# {name}\n{script}\nexec /usr/bin/wardent "$@"\n'
    machine.write(path, text, mode="755")
    return path


def standing(machine: Machine) -> str:
    """What a deploy that fails must leave as it was."""
    return machine.run(
        f"""
        cat {DROP_IN} /opt/wardent/in-force 2>&1 || true
        readlink -f "$(command -v wardent)"
        sha256sum "/proc/$(systemctl show -p MainPID --value wardent)/exe" | cut -c 1-12
        ls /run/systemd/system | grep soak || true
        find /opt/wardent/releases -name '.new-*' 2>&1 || true
        """
    ).stdout


def started(machine: Machine) -> str:
    return machine.run(
        "systemctl show -p InvocationID --value wardent"
    ).stdout.strip()


def test_another_binary_is_put_in_force_and_once_more_is_nothing(shop: Machine) -> None:
    new = new_binary(shop, "good")
    with load(shop):
        done = deploy(shop, new)
        assert done.returncode == 0, done.stdout
    digest = shop.run(f"sha256sum {new} | cut -c 1-12").stdout.strip()
    # In the drop-in twice, as in force, as the command, and as what runs.
    assert standing(shop).count(digest) == 5, standing(shop)
    for word in ("[1/6] check", "[2/6] install", "[3/6] soak", "[6/6] keep"):
        assert word in done.stdout
    assert f"{URL} answers 200" in done.stdout
    seconds = float(done.stdout.split("(")[-1].split(" s)")[0])
    assert seconds < 30, done.stdout

    before = started(shop)
    again = deploy(shop, new)
    assert again.returncode == 0 and "nothing to do" in again.stdout, again.stdout
    assert started(shop) == before


def test_a_restart_refuses_no_request(shop: Machine) -> None:
    before = started(shop)
    with load(shop):
        for _ in range(3):
            shop.run("systemctl restart wardent")
    assert started(shop) != before


@pytest.mark.long
def test_what_was_before_can_be_put_back(shop: Machine) -> None:
    before = standing(shop)
    assert deploy(shop, new_binary(shop, "other")).returncode == 0
    with load(shop):
        done = deploy(shop, "--back")
        assert done.returncode == 0, done.stdout
    assert standing(shop) == before


BAD: dict[str, tuple[str, str]] = {
    # What it does instead, and what is told of it.
    "no-program": ("exit 126", "cannot be run here"),
    "refuses-the-configuration": (
        'if [ "$1" = check ]; then echo "no such key: upstream"; exit 78; fi',
        "no such key: upstream",
    ),
    "fails-the-soak": (
        'if [ "$1 $3" != "soak --for" ] && [ "$1 $2" = "soak --for" ]; then echo "no canary"; exit 1; fi',
        "it does not serve:",
    ),
    "ends-at-once": (
        'if [ "$1" = run ]; then echo "cannot go on" >&2; exit 1; fi',
        "it ends at once",
    ),
    "is-never-ready": (
        'if [ "$1" = run ]; then exec sleep 600; fi',
        "it is not ready after 10 s",
    ),
    "reaches-no-application": (
        'if [ "$1" = run ]; then exec /usr/bin/wardent run --config /etc/wardent/broken.yaml; fi',
        "upstream_unreachable",
    ),
}


LONG = ("fails-the-soak", "is-never-ready", "reaches-no-application")


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in BAD],
)
def test_what_does_not_serve_is_not_put_in_force(shop: Machine, name: str) -> None:
    script, why = BAD[name]
    bad = bad_binary(shop, name, script)
    before, serves = standing(shop), started(shop)
    reaches = name != "reaches-no-application"
    with load(shop) if reaches else contextlib.nullcontext():
        done = deploy(shop, bad)
    assert done.returncode == 1, done.stdout
    assert why in done.stdout, done.stdout
    assert standing(shop) == before
    assert status(shop) == "200"
    if "nothing has changed" in done.stdout:
        assert started(shop) == serves
    else:
        assert "taken back" in done.stdout


@pytest.mark.long
def test_an_interrupted_deploy_is_taken_back(shop: Machine) -> None:
    bad = bad_binary(
        shop, "interrupted", 'if [ "$1" = run ]; then exec sleep 600; fi'
    )
    before = standing(shop)
    with load(shop):
        running = shop.start("wardent-deploy", "--soak", "2s", bad)
        switched = f"grep -q interrupted {DROP_IN} || grep -q $(sha256sum {bad} | cut -c 1-12) {DROP_IN}"
        wait_until(
            "it has switched",
            lambda: shop.run(switched, check=False).returncode == 0,
            40,
        )
        shop.run("kill -TERM $(cat /run/lock/wardent-deploy.lock)")
        words, _ = running.communicate(timeout=60)
    assert running.returncode == 1, words
    assert "interrupted" in words and "taken back" in words
    assert standing(shop) == before


@pytest.mark.long
def test_a_deploy_that_was_killed_leaves_nothing_that_the_next_cannot_mend(
    shop: Machine,
) -> None:
    bad = bad_binary(shop, "killed", 'if [ "$1" = run ]; then exec sleep 600; fi')
    before = standing(shop)
    good = new_binary(shop, "mends")
    with load(shop):
        running = shop.start("wardent-deploy", "--soak", "2s", bad)
        switched = f"grep -q $(sha256sum {bad} | cut -c 1-12) {DROP_IN}"
        wait_until(
            "it has switched",
            lambda: shop.run(switched, check=False).returncode == 0,
            40,
        )
        shop.run("kill -KILL $(cat /run/lock/wardent-deploy.lock)")
        running.communicate(timeout=60)
        # Without the page: the site does not answer, and that would be said first.
        done = shop.run(f"wardent-deploy --soak 2s {good}", check=False, deadline_s=120)
        assert done.returncode == 0, done.stdout
    assert standing(shop) != before
    assert status(shop) == "200"


@pytest.mark.long
def test_two_at_once_are_one_too_many(shop: Machine) -> None:
    one, two = new_binary(shop, "first"), new_binary(shop, "second")
    first = shop.start(*shlex.split(DEPLOY), one)
    begun = "kill -0 $(cat /run/lock/wardent-deploy.lock)"
    wait_until("it has begun", lambda: shop.run(begun, check=False).returncode == 0)
    second = deploy(shop, two)
    words, _ = first.communicate(timeout=90)
    assert first.returncode == 0, words
    assert second.returncode == 1
    assert "another one is at it" in second.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "which binary?"),
        ("--back /usr/bin/wardent", "--back takes no binary"),
        ("--sok 2s /usr/bin/wardent", "--sok is no option"),
        ("a b", "one binary at a time"),
        ("--url", "--url needs a value"),
    ],
)
def test_misuse_is_told(shop: Machine, words: str, why: str) -> None:
    done = shop.run(f"wardent-deploy {words}", check=False)
    assert done.returncode == 2
    assert why in done.stdout and "wardent-deploy [OPTION…] BINARY" in done.stdout


@pytest.mark.long
def test_only_the_last_releases_are_kept(shop: Machine) -> None:
    """The tests before have put in force more than are kept."""
    kept = shop.run("ls /opt/wardent/releases").stdout.split()
    assert 2 <= len(kept) <= 5, kept


def test_purging_takes_what_deploys_have_left(shop: Machine) -> None:
    said = shop.run("dpkg-reconfigure wardent 2>&1 || true; dpkg -P wardent").stdout
    assert "wardent-deploy /usr/bin/wardent" in said
    left = shop.run(f"ls -d /opt/wardent {DROP_IN} /usr/local/bin/wardent", check=False)
    assert left.stdout.count("No such file") == 3, left.stdout
