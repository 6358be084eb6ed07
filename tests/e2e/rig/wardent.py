"""The real binary, with configurations of the tests' own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rig.client import Address, Response, request
from rig.process import REPOSITORY, Process, free_port

# Limits and bans out of the way: a test that is about them sets its own.
POLICY: dict[str, Any] = {
    "mode": "enforce",
    "defaults": {"limit": {"rate": "100000/s", "burst": 100_000}, "body": "10MiB"},
    "bans": {"threshold": 1_000_000},
}

# Hands over a listening socket as systemd does: as descriptor 3, to this very pid.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def wardent_binary() -> Path:
    """`WARDENT_BIN`, or the newest that cargo has built."""
    if named := os.environ.get("WARDENT_BIN"):
        return Path(named)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    built = [target / profile / "wardent" for profile in ("release", "debug")]
    found = [path for path in built if path.exists()]
    assert found, "no wardent binary: `cargo build --release` first, or set WARDENT_BIN"
    return max(found, key=lambda path: path.stat().st_mtime)


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = deep_merge(old, value)
        merged[key] = value
    return merged


def written(address: Address) -> str:
    """An address as it stands in the configuration."""
    return f"unix:{address}" if isinstance(address, str) else "%s:%d" % address


class Wardent:
    """One Wardent with files of its own. It listens on TCP and on a unix socket."""

    def __init__(
        self,
        directory: Path,
        upstream: Address | list[Address],
        config: Mapping[str, Any] = {},
        policy: Mapping[str, Any] | str = {},
        env: Mapping[str, str] = {},
    ) -> None:
        self.directory = directory
        self.env = env
        self.address: Address = ("127.0.0.1", free_port())
        self.unix: Address = str(directory / "http.sock")
        self.admin: Address = ("127.0.0.1", free_port())
        servers = upstream if isinstance(upstream, list) else [upstream]
        base = {
            "listen": [written(self.address), written(self.unix)],
            "workers": 2,
            "upstream": {"servers": [written(server) for server in servers]},
            # One address only, so that 127.0.0.2 can play the stranger.
            "client_ip": {"trusted_peers": ["127.0.0.1/32", "unix"]},
            "policy": "policy.yaml",
            "log": {"dir": str(directory / "log"), "listen": None},
            "admin": {
                "listen": written(self.admin),
                "socket": str(directory / "admin.sock"),
            },
        }
        self.config_file = directory / "wardent.yaml"
        self.policy_file = directory / "policy.yaml"
        self.config = deep_merge(base, config)
        self.write_config(self.config)
        self.write_policy(policy)
        self.process: Process | None = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        self.config_file.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def policy_text(self, policy: Mapping[str, Any] | str) -> str:
        """A policy as YAML; a mapping is merged into the one that stays out of the way."""
        if isinstance(policy, str):
            return policy
        return yaml.safe_dump(deep_merge(POLICY, policy), sort_keys=False)

    def write_policy(self, policy: Mapping[str, Any] | str) -> None:
        self.policy_file.write_text(self.policy_text(policy))

    def start(self, listener_fd: int | None = None) -> "Wardent":
        """Starts it, with a passed socket if one is given, and waits until it is ready."""
        command: list[str | Path] = [
            wardent_binary(),
            "run",
            "--config",
            self.config_file,
        ]
        fds: tuple[int, ...] = ()
        if listener_fd is not None:
            command = [sys.executable, "-c", AS_SYSTEMD, str(listener_fd), *command]
            fds = (listener_fd,)
        self.process = Process("wardent", command, self.directory, self.env, fds)
        self.process.ready(self.is_ready)
        return self

    def is_ready(self) -> bool:
        return self.ask_admin("/readyz").status == 200

    def ask_admin(self, path: str) -> Response:
        """What the admin listener says, called by its own name."""
        return request(self.admin, path, headers={"Host": "localhost"}, timeout_s=5)

    @property
    def running(self) -> Process:
        assert self.process is not None, "not started"
        return self.process

    def output(self) -> str:
        """What it has said so far."""
        return self.running.text()

    def stop(self) -> None:
        if self.process:
            self.process.stop()

    def cli(
        self, *arguments: str, stdin: str = "", deadline_s: float = 15
    ) -> subprocess.CompletedProcess[str]:
        """A command of the same binary, about this Wardent."""
        return subprocess.run(
            [wardent_binary(), *arguments, "--config", str(self.config_file)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            env={**os.environ, **self.env},
        )

    def metrics(self) -> str:
        return self.ask_admin("/metrics").text

    def api(self, path: str) -> Any:
        return json.loads(self.ask_admin(f"/api/v1/{path}").body)
