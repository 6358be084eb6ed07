"""Start, drain, restart: no request is refused or broken because an operator did their work."""

import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig import Connection, Gunicorn, Wardent, free_port, request, wait_until
from rig.client import Address, open_socket

CLIENT = {"CF-Connecting-IP": "198.51.100.7"}


class Gate:
    """An upstream that holds its answer until the test lets it go."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, connection: socket.socket, _: bytes) -> None:
        self.arrived.release()
        self.go_on.wait(30)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def refuses(address: Address) -> bool:
    try:
        open_socket(address, timeout_s=2).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_lets_requests_finish(rig) -> None:
    gate = Gate()
    wardent = rig.wardent(rig.raw_upstream(gate).address)
    with ThreadPoolExecutor(5) as clients:
        try:
            slow = [
                clients.submit(request, wardent.address, headers=CLIENT, timeout_s=30)
                for _ in range(5)
            ]
            for _ in slow:
                assert gate.arrived.acquire(timeout=10)
            wardent.running.signal(signal.SIGTERM)
            wait_until("no new connection is taken", lambda: refuses(wardent.address))
            assert wardent.running.child.poll() is None
        finally:
            gate.go_on.set()
        assert [future.result().status for future in slow] == [200] * 5
    assert wardent.running.wait() == 0


def test_sigterm_lets_an_answer_finish(rig, django_app: Gunicorn) -> None:
    wardent = rig.wardent(django_app.address)
    answer = Connection(wardent.address).begin("GET", "/slow-body/1.5", CLIENT)
    assert answer.readline() == b"begun\n"
    wardent.running.signal(signal.SIGTERM)
    assert answer.read() == b"done\n"
    assert wardent.running.wait() == 0


def test_an_idle_connection_does_not_hold_up_the_end(rig, django_app) -> None:
    wardent = rig.wardent(django_app.address)
    idle = Connection(wardent.address)
    assert idle.ask("GET", "/", CLIENT).status == 200
    with open_socket(wardent.address):  # and one that never said anything
        wardent.running.signal(signal.SIGTERM)
        assert wardent.running.wait(15) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(rig, number: signal.Signals) -> None:
    gate = Gate()
    wardent = rig.wardent(rig.raw_upstream(gate).address)
    held = threading.Thread(
        target=lambda: pytest.raises(
            Exception, request, wardent.address, headers=CLIENT, timeout_s=60
        )
    )
    held.start()
    try:
        assert gate.arrived.acquire(timeout=10)
        wardent.running.signal(number)
        wait_until("it drains", lambda: refuses(wardent.address))
        wardent.running.signal(number)
        wardent.running.wait(3)
    finally:
        gate.go_on.set()
        held.join(10)


def test_it_starts_again_after_a_kill(rig, django_app: Gunicorn) -> None:
    wardent = rig.wardent(django_app.address)
    assert request(wardent.address, headers=CLIENT).status == 200
    wardent.running.signal(signal.SIGKILL)
    wardent.running.wait()
    # The unix socket it left behind is not in the way.
    wardent.start()
    assert request(wardent.address, headers=CLIENT).status == 200
    assert request(wardent.unix, headers=CLIENT).status == 200


def test_readyz_turns_red_while_draining_or_the_door_is_shut(rig) -> None:
    gate = Gate()
    wardent = rig.wardent(rig.raw_upstream(gate).address)
    assert wardent.ask_admin("/livez").status == 200
    with ThreadPoolExecutor(1) as clients:
        try:
            slow = clients.submit(request, wardent.address, headers=CLIENT)
            assert gate.arrived.acquire(timeout=10)
            wardent.running.signal(signal.SIGTERM)

            def not_ready() -> bool:
                return (
                    refuses(wardent.admin)
                    or wardent.ask_admin("/readyz").status == 503
                )

            wait_until("it is not ready any more", not_ready)
        finally:
            gate.go_on.set()
        assert slow.result().status == 200


class Load:
    """Clients that go on asking until they are told to stop; every answer is counted."""

    def __init__(self, address: Address, clients: int, kept: bool) -> None:
        self.address, self.kept = address, kept
        self.answers: Counter[str] = Counter()
        self.stopped = threading.Event()
        self.pool = ThreadPoolExecutor(clients)
        self.futures = [self.pool.submit(self.run) for _ in range(clients)]

    def run(self) -> None:
        connection = Connection(self.address)
        number = 0
        while not self.stopped.is_set():
            number += 1
            method, body = ("POST", b"x" * 500) if number % 2 else ("GET", None)
            try:
                got = connection.ask(method, "/echo", CLIENT, body)
                self.answers[str(got.status)] += 1
            except Exception as error:
                self.answers[f"{method}: {error!r}"] += 1
                connection.close()
            if not self.kept:
                connection.close()

    def total(self) -> int:
        return self.answers.total()

    def stop(self) -> Counter[str]:
        self.stopped.set()
        for future in self.futures:
            future.result(30)
        self.pool.shutdown()
        return self.answers


@pytest.fixture
def passed_socket(rig):
    """A listening socket as systemd holds it: it outlives every Wardent."""
    listener = socket.create_server(("127.0.0.1", free_port()), backlog=4096)
    yield listener
    listener.close()


def restart_three_times(wardent: Wardent, fd: int, load: Load) -> None:
    """As `systemctl restart` does: stops the old one, waits for its end, starts the new one."""
    for _ in range(3):
        before = load.total()
        wait_until("requests flow", lambda: load.total() > before + 100)
        wardent.running.signal(signal.SIGTERM)
        assert wardent.running.wait(30) == 0
        wardent.start(listener_fd=fd)
    before = load.total()
    wait_until("requests flow again", lambda: load.total() > before + 100)


def test_a_passed_socket_wins_over_the_configured_one(
    rig, django_app: Gunicorn, passed_socket: socket.socket
) -> None:
    wardent = rig.wardent(django_app.address, start=False)
    wardent.start(listener_fd=passed_socket.fileno())
    assert request(passed_socket.getsockname(), headers=CLIENT).status == 200
    assert refuses(wardent.address)


def test_a_restart_breaks_no_request_through_nginx(
    rig, django_app: Gunicorn, passed_socket: socket.socket
) -> None:
    wardent = rig.wardent(django_app.address, start=False)
    wardent.start(listener_fd=passed_socket.fileno())
    nginx = rig.nginx(passed_socket.getsockname())
    load = Load(nginx.address, clients=4, kept=True)
    try:
        restart_three_times(wardent, passed_socket.fileno(), load)
    finally:
        answers = load.stop()
    assert set(answers) == {"200"}, answers


def test_a_restart_refuses_no_new_connection(
    rig, django_app: Gunicorn, passed_socket: socket.socket
) -> None:
    wardent = rig.wardent(django_app.address, start=False)
    wardent.start(listener_fd=passed_socket.fileno())
    load = Load(passed_socket.getsockname(), clients=4, kept=False)
    try:
        restart_three_times(wardent, passed_socket.fileno(), load)
    finally:
        answers = load.stop()
    assert set(answers) == {"200"}, answers


def test_a_unix_socket_can_be_passed_too(rig, django_app: Gunicorn) -> None:
    path = str(rig.directory() / "passed.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(128)
        wardent = rig.wardent(django_app.address, start=False)
        wardent.start(listener_fd=listener.fileno())
        assert request(path, headers=CLIENT).status == 200


def test_an_application_that_restarts_is_noticed_by_nobody_who_may_repeat(
    rig,
) -> None:
    """Pooled connections to the old gunicorn are dead; a GET is tried again on a new one."""
    app = rig.gunicorn()
    wardent = rig.wardent(app.address)
    for _ in range(8):
        assert request(wardent.address, headers=CLIENT).status == 200
    app.stop()
    app.start()
    for _ in range(8):
        assert request(wardent.address, headers=CLIENT).status == 200
