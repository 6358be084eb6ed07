"""The commands that an operator types: what they print, and how they end."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from rig import Process, Wardent, request, wait_until, wardent_binary

CLIENT = {"CF-Connecting-IP": "198.51.100.7"}

# A user that owns nothing.
NOBODY = 65_534


@pytest.fixture
def stopped(rig) -> Wardent:
    """Files that are right, and nothing that runs."""
    return rig.wardent(("127.0.0.1", 9), start=False)


def test_check_is_content_with_good_files(stopped: Wardent) -> None:
    done = stopped.cli("check")
    assert done.returncode == 0, done.stderr


def test_the_shipped_samples_are_good(repository: Path) -> None:
    sample = repository / "config" / "wardent.yaml"
    if not sample.exists():
        pytest.skip("no sample yet")
    for file in ("wardent.yaml", "policy.yaml"):
        assert (repository / "config" / file).exists()
    done = subprocess.run(
        [wardent_binary(), "check", "--config", sample],
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "policy,place,words",
    [
        ("mode: enforce\ndefalts: {}\n", "policy.yaml:2:1: ", ["defalts", "defaults"]),
        ("mode: enforced\n", "policy.yaml:1:7: ", ["enforced", "enforce", "observe"]),
        ("defaults:\n  body: lots\n", "policy.yaml:2:9: ", ["lots"]),
        ("defaults:\n  limit: {rate: 20/x}\n", "policy.yaml:2:17: ", ["20/x", "s, m, h, d"]),
        ("deny: [203.0.113.0/33]\n", "policy.yaml:1:8: ", ["203.0.113.0/33"]),
        ("bans:\n  window: 60\n", "policy.yaml:2:11: ", ["60"]),
        ("mode: enforce\nroutes:\n  - match: {path: /}\n", "policy.yaml:3:", ["name"]),
        ("a: [1\n", "policy.yaml:", []),
        ("", "policy.yaml", []),
    ],
    ids=[
        *("unknown key", "unknown word", "size", "rate", "network", "duration"),
        *("missing key", "not yaml", "empty"),
    ],
)
def test_check_says_where_what_and_what_instead(
    stopped: Wardent, policy: str, place: str, words: list[str]
) -> None:
    stopped.policy_file.write_text(policy)
    done = stopped.cli("check")
    assert done.returncode == 78
    said = done.stdout + done.stderr
    assert place in said, said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    "text,place",
    [
        ("listen: [127.0.0.1:8080]\nupsteam: {}\n", "wardent.yaml:2:1: "),
        (
            "listen: [127.0.0.1]\nupstream: {servers: ['127.0.0.1:1']}\n",
            "wardent.yaml:1:10",
        ),
        ("upstream: {servers: ['127.0.0.1:8000']}\n", "wardent.yaml"),
    ],
    ids=["unknown key", "bad address", "no listen"],
)
def test_check_reads_the_configuration_too(
    stopped: Wardent, text: str, place: str
) -> None:
    stopped.config_file.write_text(text)
    done = stopped.cli("check")
    assert done.returncode == 78
    assert place in done.stdout + done.stderr


def test_check_warns_of_a_route_that_never_matches(stopped: Wardent) -> None:
    routes = [
        {"name": "all", "match": {"path": "/**"}},
        {"name": "late", "match": {"path": "/late/"}},
    ]
    stopped.write_policy({"routes": routes})
    done = stopped.cli("check")
    assert done.returncode == 0
    assert "late" in done.stdout + done.stderr


def test_a_file_where_the_logs_directory_belongs_is_refused(stopped: Wardent) -> None:
    (stopped.directory / "log").write_text("")
    done = stopped.cli("check")
    assert done.returncode == 78
    assert f"log.dir: {stopped.directory}/log is no directory" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_log_directory_that_this_user_cannot_write_is_told(stopped: Wardent) -> None:
    said = "log.dir: {0}/log: {0} cannot be written by this user: Permission denied"
    said = said.format(stopped.directory)
    binary = shutil.copy(wardent_binary(), stopped.directory)
    for path in (stopped.directory.parent, stopped.directory):
        path.chmod(0o755)
    command = [binary, "check", "--config", str(stopped.config_file)]
    for user, is_told in ((0, False), (NOBODY, True)):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=15, user=user, group=user
        )
        assert done.returncode == 0, done.stderr
        assert (said in done.stderr) == is_told, done.stderr
    assert not (stopped.directory / "log").exists()


def test_run_ends_with_78_on_a_bad_configuration(rig, stopped: Wardent) -> None:
    stopped.policy_file.write_text("mode: enforced\n")
    command = [wardent_binary(), "run", "--config", stopped.config_file]
    process = Process("wardent", command, rig.directory())
    assert process.wait(15) == 78
    assert "policy.yaml:1:7: " in process.text()


def test_a_missing_file_is_named(stopped: Wardent) -> None:
    stopped.config_file.unlink()
    done = stopped.cli("check")
    assert done.returncode == 78
    assert str(stopped.config_file) in done.stdout + done.stderr


def test_misuse_is_2() -> None:
    for arguments in (["no-such-command"], ["check", "--no-such-flag"]):
        done = subprocess.run(
            [wardent_binary(), *arguments], capture_output=True, timeout=15
        )
        assert done.returncode == 2


def test_config_may_stand_before_the_command(stopped: Wardent) -> None:
    done = subprocess.run(
        [wardent_binary(), "--config", stopped.config_file, "check"],
        capture_output=True,
        timeout=15,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["run", "demo", "check", "reload", "secret"])
def test_help_has_examples(command: str) -> None:
    done = subprocess.run(
        [wardent_binary(), command, "--help"],
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_a_command_without_a_running_wardent_fails_and_says_so(
    stopped: Wardent,
) -> None:
    done = stopped.cli("reload")
    assert done.returncode == 1
    assert "admin.sock" in done.stdout + done.stderr


def addresses(text: str) -> list[tuple[str, int]]:
    """The HTTP addresses that a text names."""
    found = re.findall(r"http://(127\.0\.0\.1|localhost):(\d+)", text)
    return [("127.0.0.1", int(port)) for _, port in found]


@pytest.mark.parametrize("protected", [False, True], ids=["built-in", "upstream"])
def test_demo(rig, django_app, protected: bool) -> None:
    """One command shows it all: it prints addresses, and what it prints works."""
    options = ["--upstream", "http://%s:%d" % django_app.address] if protected else []
    command = [wardent_binary(), "demo", *options]
    directory = rig.directory()
    temporary = directory / "temporary"
    temporary.mkdir()
    demo = Process("demo", command, directory, {"TMPDIR": str(temporary)})
    rig.stack.callback(demo.stop)
    wait_until(
        "the demo prints its addresses and three commands",
        lambda: demo.text().count("curl") >= 1 and addresses(demo.text()),
        30,
    )
    host, port = addresses(demo.text())[0]
    curl = ["curl", "-sS", "--max-time", "10", f"http://{host}:{port}/"]
    done = subprocess.run(curl, capture_output=True, text=True, timeout=15)
    assert done.returncode == 0, done.stderr
    if protected:
        assert "The shop is open" in done.stdout
    assert len(set(addresses(demo.text()))) >= 2, "the proxy and the dashboard"
    for address in set(addresses(demo.text())):
        assert request(address).status < 500
    tail = next(line.split() for line in demo.text().splitlines() if " events tail " in line)
    query = [*tail[: tail.index("tail")], "query", "--output", "json"]
    wait_until(
        "the log has the request",
        lambda: '"event":"access"' in subprocess.run(query, capture_output=True, text=True).stdout,
        30,
    )

    demo.signal(signal.SIGINT)
    assert demo.wait(20) == 0
    assert not list(temporary.iterdir())
