"""The unit files, judged by systemd's own tools."""

import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from rig import Gunicorn, wait_until

EXPOSURE_MAX = 1.2

pytestmark = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(repository: Path, tmp_path: Path) -> Path:
    """The units, with a binary that is there."""
    for name in ("wardent.service", "wardent.socket", "wardent-mirror.service"):
        text = (repository / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/bin/wardent", "/bin/true"))
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60
    )


def test_systemd_accepts_the_units(units: Path) -> None:
    done = analyze("verify", *units.iterdir())
    assert done.returncode == 0, done.stderr
    assert "wardent" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["wardent.service", "wardent-mirror.service"])
def test_a_service_is_hardened(units: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", units / name)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "NotifyAccess=main",
        "ExecStart=/usr/bin/wardent run --config /etc/wardent/wardent.yaml",
        "ExecReload=/usr/bin/wardent reload --config /etc/wardent/wardent.yaml",
        "Restart=always",
        "RestartPreventExitStatus=78",
        "TimeoutStopSec=40",
        "SystemCallFilter=setpriority",
    ],
)
def test_the_service_says(repository: Path, line: str) -> None:
    text = (repository / "systemd" / "wardent.service").read_text()
    assert line in text.splitlines()


def test_systemd_hears_of_start_reload_and_end(rig, django_app: Gunicorn) -> None:
    """What `Type=notify-reload` asks for (systemd.service(5)), and `Type=notify` takes."""
    path = rig.directory() / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(15)

        def heard() -> dict[str, str]:
            """The next thing it says, beside that it lives."""
            lines = ["WATCHDOG=1"]
            while lines == ["WATCHDOG=1"]:
                lines = systemd.recv(4096).decode().splitlines()
            return dict(line.split("=", 1) for line in lines)

        wardent = rig.wardent(django_app.address, env={"NOTIFY_SOCKET": str(path)})
        assert heard() == {"READY": "1"}
        for policy in ({"mode": "enforce"}, "mode: no such mode\n"):
            wardent.write_policy(policy)
            begun = time.clock_gettime(time.CLOCK_MONOTONIC)
            wardent.running.signal(signal.SIGHUP)
            reloading = heard()
            assert reloading.pop("RELOADING") == "1"
            assert int(reloading.pop("MONOTONIC_USEC")) >= int(begun * 1e6)
            assert not reloading
            assert heard() == {"READY": "1"}
        wait_until("the log says why", lambda: "no such mode" in wardent.output())
        wardent.running.signal(signal.SIGTERM)
        assert heard() == {"STOPPING": "1"}
        assert wardent.running.wait() == 0


def test_the_user_and_the_files_can_be_made(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "etc" / "wardent").mkdir(parents=True)
    for name in ("wardent.yaml", "policy.yaml", "secret"):
        (tmp_path / "etc" / "wardent" / name).touch(mode=0o644)
    for tool, file in (
        (["systemd-sysusers"], "wardent.sysusers"),
        (["systemd-tmpfiles", "--create"], "wardent.tmpfiles"),
    ):
        done = subprocess.run(
            [*tool, f"--root={tmp_path}", repository / "systemd" / file],
            capture_output=True,
            text=True,
            timeout=30,
        )
        if "Operation not permitted" in done.stderr:
            pytest.skip("needs root")
        assert done.returncode == 0, done.stderr
    assert "wardent:" in (tmp_path / "etc" / "passwd").read_text()
    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "etc" / "wardent").iterdir()
    }
    assert set(modes.values()) == {"0o640"}
    assert (tmp_path / "etc" / "wardent").stat().st_mode & 0o777 == 0o750
