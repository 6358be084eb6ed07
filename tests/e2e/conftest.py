"""Fixtures: each test says what it needs, the rig starts it and ends it."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import (
    CannotBoot,
    Gunicorn,
    Machine,
    Nginx,
    Process,
    RawUpstream,
    Uvicorn,
    Wardent,
)
from rig.client import Address
from rig.process import REPOSITORY

TAIL_LINES = 60


class Rig:
    """Starts servers and ends them, last first."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: a unix socket's path has at most 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="wardent-"))
        self.stack = contextlib.ExitStack()
        self.count = 0

    def directory(self) -> Path:
        """A new, empty one."""
        self.count += 1
        path = self.root / str(self.count)
        path.mkdir()
        return path

    def wardent(self, upstream: Address, start: bool = True, **options: Any) -> Wardent:
        wardent = Wardent(self.directory(), upstream, **options)
        self.stack.callback(wardent.stop)
        return wardent.start() if start else wardent

    def nginx(self, upstream: Address, **options: Any) -> Nginx:
        nginx = Nginx(self.directory(), upstream, **options)
        self.stack.callback(nginx.stop)
        return nginx.start()

    def gunicorn(self, **options: Any) -> Gunicorn:
        gunicorn = Gunicorn(self.directory(), **options)
        self.stack.callback(gunicorn.stop)
        return gunicorn.start()

    def uvicorn(self) -> Uvicorn:
        uvicorn = Uvicorn(self.directory())
        self.stack.callback(uvicorn.stop)
        return uvicorn.start()

    def raw_upstream(self, handler: Any, path: str | None = None) -> RawUpstream:
        upstream = RawUpstream(handler, path)
        self.stack.callback(upstream.stop)
        return upstream

    def close(self) -> None:
        self.stack.close()
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """For one test."""
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def module_rig() -> Iterator[Rig]:
    """For all tests of a file."""
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture(scope="session")
def session_rig() -> Iterator[Rig]:
    """For the whole run."""
    rig = Rig()
    yield rig
    rig.close()


STRIPE_SECRETS = ["whsec_" + "a" * 32, "whsec_" + "b" * 32]


@pytest.fixture(scope="session")
def django_app(session_rig: Rig) -> Gunicorn:
    """The Django example, without the middleware that asks for Wardent's signature."""
    env = {"STRIPE_WEBHOOK_SECRET": ",".join(STRIPE_SECRETS)}
    return session_rig.gunicorn(env=env)


@pytest.fixture(scope="session")
def asgi_app(session_rig: Rig) -> Uvicorn:
    """The Django example with WebSockets."""
    return session_rig.uvicorn()


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine of the file's own, with systemd."""
    try:
        machine = Machine()
    except CannotBoot as why:
        pytest.skip(f"no machine of its own: {why}")
    yield machine
    machine.stop()


@pytest.fixture(scope="session")
def package(repository: Path) -> Path:
    """The Debian package of the binary that is built."""
    made = subprocess.run(
        [repository / "ops" / "package", "--fast"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return Path(made.stdout.splitlines()[-1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failed test shows what its servers said meanwhile."""
    report = yield
    if report.failed:
        for process in Process.started:
            for file in (process.output, process.output.with_name("error.log")):
                if file.exists() and file.stat().st_mtime >= call.start:
                    lines = file.read_text(errors="replace").splitlines()
                    title = f"{process.name} ({process.pid}): {file.name}"
                    report.sections.append((title, "\n".join(lines[-TAIL_LINES:])))
    return report
