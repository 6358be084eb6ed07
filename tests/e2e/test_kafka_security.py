"""Who may use the Kafka listener: TLS, SASL and rights, with clients that nobody here wrote."""

import contextlib
import json
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.errors import KafkaError, TopicAuthorizationFailedError
from rig import Wardent
from rig.client import Address, request
from rig.process import REPOSITORY, free_port

ACCESS = "wardent.http.access"
AUDIT = "wardent.audit.event"
MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"]
PASSWORD = "correct horse battery"

# librdkafka fetches and compresses only where it may produce.
needs_produce = pytest.mark.skipif(
    "| Produce |" not in (REPOSITORY / "docs/kafka-support.md").read_text(),
    reason="librdkafka needs Produce to be spoken",
)


def certificate(directory: Path, name: str = "cert") -> dict[str, str]:
    """A certificate of its own for this machine, and its key."""
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    key.chmod(0o640)
    return {"cert": str(cert), "key": str(key)}


class Guarded:
    """A Wardent whose listener asks who comes, with a user for each right."""

    def __init__(self, rig: Any, address: str = "127.0.0.1") -> None:
        directory = rig.directory()
        self.tls = certificate(directory)
        self.kafka = ("127.0.0.1", free_port())
        log = {
            "listen": f"{address}:{self.kafka[1]}",
            "advertised": "127.0.0.1:%d" % self.kafka[1],
            "tls": self.tls,
            "sasl": {"mechanisms": MECHANISMS},
        }
        upstream = rig.raw_upstream(answer)
        config = {"log": log, "client_ip": {"missing": "peer"}}
        self.wardent: Wardent = rig.wardent(upstream.address, config=config)
        self.add("reader", "--read", ACCESS, "--group", "reader-")
        self.add("ops", "--admin")

    def add(self, name: str, *rights: str) -> dict[str, Any]:
        command = ["log", "users", "add", name, *rights]
        added = self.wardent.cli(*command, "--password-file", "-", "--output", "json", stdin=PASSWORD + "\n")
        assert added.returncode == 0, added.stderr
        return json.loads(added.stdout)

    def client(self, user: str, mechanism: str = "SCRAM-SHA-512", password: str = PASSWORD) -> dict[str, Any]:
        """What kafka-python needs to be that user."""
        return {
            "bootstrap_servers": "127.0.0.1:%d" % self.kafka[1],
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.tls["cert"],
            "sasl_mechanism": mechanism,
            "sasl_plain_username": user,
            "sasl_plain_password": password,
        }

    def kcat(
        self, *arguments: str, user: str = "reader", mechanism: str = "SCRAM-SHA-512", password: str = PASSWORD
    ) -> subprocess.CompletedProcess[str]:
        settings = {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": self.tls["cert"],
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
        }
        options = [part for name, value in settings.items() for part in ("-X", f"{name}={value}")]
        command = ["kcat", "-b", "127.0.0.1:%d" % self.kafka[1], *options, *arguments]
        return subprocess.run(command, input="", capture_output=True, text=True, timeout=50)

    def asked(self, path: str) -> None:
        """Has a request done, so that an event is there."""
        assert request(self.wardent.address, path).status == 200


def answer(connection: socket.socket, first: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def guarded(module_rig: Any) -> Guarded:
    return Guarded(module_rig)


@contextlib.contextmanager
def closing(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        client.close()


def events(consumer: KafkaConsumer, topic: str) -> Iterator[dict[str, Any]]:
    """The events of a topic from its beginning, until nothing comes for five seconds."""
    partitions = [TopicPartition(topic, index) for index in consumer.partitions_for_topic(topic) or ()]
    assert partitions, f"{topic} is not shown"
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    for record in consumer:
        yield json.loads(record.value)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_reader_reads_its_topic_alone(guarded: Guarded, mechanism: str) -> None:
    guarded.asked(f"/read-by-{mechanism}")
    with closing(KafkaConsumer(consumer_timeout_ms=5_000, **guarded.client("reader", mechanism))) as consumer:
        assert consumer.topics() == {ACCESS}
        paths = (event.get("path") for event in events(consumer, ACCESS))
        assert f"/read-by-{mechanism}" in paths
        assert not consumer.partitions_for_topic(AUDIT)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_librdkafka_logs_in(guarded: Guarded, mechanism: str) -> None:
    listed = guarded.kcat("-L", "-J", mechanism=mechanism)
    assert listed.returncode == 0, listed.stderr
    topics = [topic["topic"] for topic in json.loads(listed.stdout)["topics"]]
    assert topics == [ACCESS]


@needs_produce
def test_librdkafka_reads_what_it_may_and_nothing_else(guarded: Guarded) -> None:
    guarded.asked("/read-by-kcat")
    read = guarded.kcat("-C", "-t", ACCESS, "-e", "-q")
    assert read.returncode == 0 and "/read-by-kcat" in read.stdout, read.stderr
    other = guarded.kcat("-C", "-t", AUDIT, "-e", "-q")
    assert other.returncode != 0 and "Topic authorization failed" in other.stderr, other.stderr
    sent = guarded.kcat("-P", "-t", ACCESS, "-l", "/etc/hostname", "-X", "message.timeout.ms=15000")
    assert "Topic authorization failed" in sent.stderr, sent.stderr


@needs_produce
def test_nobody_writes_what_wardent_writes(guarded: Guarded) -> None:
    for topic in (ACCESS, "wardent.client.ban", "__wardent_metadata"):
        with closing(KafkaProducer(retries=0, **guarded.client("ops"))) as producer:
            with pytest.raises(TopicAuthorizationFailedError):
                producer.send(topic, b"forged", key=b"key", partition=0).get(timeout=20)


def test_a_wrong_password_is_refused_and_counted(rig: Any) -> None:
    # One of its own: who fails often is not looked at for a while.
    guarded = Guarded(rig)
    for user, password in (("reader", "wrong" + PASSWORD), ("nobody", PASSWORD)):
        with pytest.raises(KafkaError):
            KafkaConsumer(bootstrap_timeout_ms=1_500, **guarded.client(user, "SCRAM-SHA-256", password))
    assert metric(guarded, "wardent_kafka_failed_logins_total") >= 2
    assert metric(guarded, "wardent_kafka_logins_total") == 0


def metric(guarded: Guarded, name: str) -> float:
    lines = guarded.wardent.metrics().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def connect(address: Address) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(address, timeout=20))


def frame(key: int, version: int, body: bytes = b"") -> bytes:
    header = struct.pack(">hhih", key, version, 7, -1) + body
    return struct.pack(">i", len(header)) + header


def test_who_has_not_logged_in_is_not_served(guarded: Guarded) -> None:
    with connect(guarded.kafka) as versions:
        versions.sendall(frame(18, 0))
        assert len(versions.recv(4)) == 4
    for key, version in ((3, 1), (1, 4), (10, 0), (19, 2), (29, 1)):
        with connect(guarded.kafka) as stranger:
            stranger.sendall(frame(key, version, b"\0" * 32))
            assert stranger.recv(1) == b"", f"key {key} was answered"


def test_who_speaks_no_tls_is_not_served(guarded: Guarded) -> None:
    with socket.create_connection(guarded.kafka, timeout=20) as plain:
        plain.sendall(frame(18, 0))
        with contextlib.suppress(ConnectionResetError):
            # An alert of TLS at the most.
            assert plain.recv(64)[:1] in (b"", b"\x15")


def test_old_and_new_tls_are_spoken(guarded: Guarded) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=guarded.tls["cert"])
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(guarded.kafka, timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as inside:
                assert inside.version() == version.name.replace("_", ".")


def test_rights_are_changed_by_other_tools_and_hold_at_once(guarded: Guarded) -> None:
    guarded.add("late")
    audit = ResourcePattern(ResourceType.TOPIC, AUDIT)
    line = ACL("User:late", "*", ACLOperation.READ, ACLPermissionType.ALLOW, audit)
    late = KafkaConsumer(consumer_timeout_ms=5_000, **guarded.client("late"))
    with closing(late), closing(KafkaAdminClient(**guarded.client("ops"))) as ops:
        assert late.topics() == set()
        ops.create_acls([line])
        assert late.topics() == {AUDIT}
        told = [event for event in events(late, AUDIT) if event["what"] == "kafka_access"]
        by_ops = [event for event in told if event["actor"] == "User:ops"]
        assert by_ops[-1]["target"] == "User:late"
        assert by_ops[-1]["after"]["rights"] == [f"allow read topic {AUDIT}"]
        assert PASSWORD not in json.dumps(told)
        meant = ACLFilter("User:late", "*", ACLOperation.ANY, ACLPermissionType.ANY, audit)
        ops.delete_acls([meant])
        assert late.topics() == set()


def test_users_are_listed_changed_and_removed(rig: Any) -> None:
    guarded = Guarded(rig)
    added = guarded.wardent.cli("log", "users", "add", "brief", "--read", "orders*", "--output", "json")
    password = json.loads(added.stdout)["password"]
    with closing(KafkaConsumer(**guarded.client("brief", password=password))) as brief:
        assert brief.topics() == set()
    twice = guarded.wardent.cli("log", "users", "add", "brief")
    assert twice.returncode == 1 and "there is a user" in twice.stderr
    listed = json.loads(guarded.wardent.cli("log", "users", "list", "--output", "json").stdout)
    brief_user = next(user for user in listed["users"] if user["name"] == "brief")
    assert brief_user["rights"] == ["allow read topic prefixed orders"] and listed["asked"]
    assert guarded.wardent.cli("log", "users", "passwd", "brief").returncode == 0
    with pytest.raises(KafkaError):
        KafkaConsumer(bootstrap_timeout_ms=1_500, **guarded.client("brief", password=password))
    assert guarded.wardent.cli("log", "users", "remove", "brief").returncode == 0
    gone = guarded.wardent.cli("log", "users", "remove", "brief")
    assert gone.returncode == 1 and "no user" in gone.stderr


def test_users_outlive_kill_9_and_certificates_are_renewed(rig: Any) -> None:
    guarded = Guarded(rig)
    guarded.wardent.running.signal(signal.SIGKILL)
    guarded.wardent.running.wait()
    guarded.wardent.start()
    with closing(KafkaConsumer(**guarded.client("reader"))) as reader:
        assert ACCESS in reader.topics()
    shown = ssl.get_server_certificate(guarded.kafka)
    certificate(Path(guarded.tls["cert"]).parent)
    assert guarded.wardent.cli("reload").returncode == 0
    assert ssl.get_server_certificate(guarded.kafka) != shown
    Path(guarded.tls["key"]).write_text("nothing")
    refused = guarded.wardent.cli("reload")
    assert refused.returncode == 1 and "holds no private key" in refused.stderr
    with closing(KafkaConsumer(**guarded.client("reader"))) as reader:
        assert ACCESS in reader.topics()


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ({"listen": "0.0.0.0:19092"}, "it needs `log.tls` and `log.sasl`"),
        ({"sasl": {"mechanisms": ["PLAIN"]}}, "PLAIN sends passwords as they are"),
        ({"tls": {"cert": "none.pem", "key": "none.key"}}, "none.pem: cannot be read"),
    ],
)
def test_what_would_be_open_is_refused(rig: Any, log: dict[str, Any], told: str) -> None:
    log = {"listen": "127.0.0.1:%d" % free_port(), "advertised": "127.0.0.1:9092", **log}
    wardent: Wardent = rig.wardent(("127.0.0.1", 1), start=False, config={"log": log})
    for command in ("check", "run"):
        refused = wardent.cli(command)
        assert refused.returncode == 78, refused
        assert told in refused.stderr and "wardent.yaml:" in refused.stderr
