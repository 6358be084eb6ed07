"""What ships for Prometheus, with the real one: it scrapes, its rules load, its questions are answered."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from rig import Process, RawUpstream, Wardent, request, wait_until
from rig.client import Address
from rig.process import REPOSITORY, free_port

OPS = REPOSITORY / "ops"
IP = "198.51.100.7"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def answer(connection, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


@pytest.fixture
def upstream(rig) -> RawUpstream:
    return rig.raw_upstream(answer)


def run(*command: object, stdin: str = "") -> str:
    """What a command says, which must be content."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_alert_fires_when_it_must_and_not_before() -> None:
    run("promtool", "test", "rules", OPS / "prometheus/alerts_test.yaml")


def test_the_samples_can_be_read() -> None:
    run("promtool", "check", "config", OPS / "prometheus/prometheus.yaml")
    run("amtool", "check-config", OPS / "alertmanager/alertmanager.yaml")


def test_names_units_and_words_are_as_prometheus_asks_for(rig, upstream: RawUpstream) -> None:
    wardent = rig.wardent(upstream.address)
    assert request(wardent.address, headers={"CF-Connecting-IP": IP}).status == 200
    page = wardent.metrics()
    said = run("promtool", "check", "metrics", stdin=page)
    assert said == "", said


def test_both_formats_tell_the_same(rig, upstream: RawUpstream) -> None:
    wardent = rig.wardent(upstream.address)

    def scrape(accept: str) -> tuple[str, list[str]]:
        headers = {"Host": "localhost", "Accept": accept}
        answer = request(wardent.admin, "/metrics", headers=headers)
        lines = answer.text.splitlines()
        samples = [line.split()[0] for line in lines if not line.startswith("#")]
        return answer.headers["content-type"], samples

    new_type, new = scrape(OPEN_METRICS)
    old_type, old = scrape("*/*")
    assert new_type.startswith("application/openmetrics-text; version=1.0.0")
    assert old_type.startswith("text/plain; version=0.0.4")
    assert new == old


class Prometheus:
    """Debian's, with the sample's rules, at a scrape a second."""

    def __init__(self, directory: Path, target: Address) -> None:
        self.address = ("127.0.0.1", free_port())
        sample = yaml.safe_load((OPS / "prometheus/prometheus.yaml").read_text())
        sample["global"].update(
            scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s"
        )
        del sample["alerting"]
        (job,) = sample["scrape_configs"]
        job["static_configs"][0]["targets"] = ["%s:%d" % target]
        shutil.copy(OPS / "prometheus/alerts.yaml", directory)
        config = directory / "prometheus.yaml"
        config.write_text(yaml.safe_dump(sample))
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--web.listen-address=%s:%d" % self.address,
        ]
        self.process = Process("prometheus", command, directory)
        self.process.ready(lambda: request(self.address, "/-/ready").status == 200)

    def get(self, path: str) -> dict:
        answer = json.loads(request(self.address, f"/api/v1/{path}").body)
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query: str) -> list[dict]:
        return self.get(f"query?query={quote(query)}")["result"]

    def number(self, query: str) -> float | None:
        """The value of the one series that a query has."""
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else None

    def alerts(self) -> dict[str, str]:
        """The alerts that fire or are about to."""
        found = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert["state"] for alert in found}


@pytest.fixture
def watched(rig, upstream: RawUpstream) -> Iterator[tuple[Wardent, Prometheus]]:
    wardent = rig.wardent(upstream.address)
    prometheus = Prometheus(rig.directory(), wardent.admin)
    yield wardent, prometheus
    prometheus.process.stop()


@pytest.mark.timeout(120)
def test_prometheus_scrapes_a_live_wardent(watched: tuple[Wardent, Prometheus]) -> None:
    wardent, prometheus = watched
    for _ in range(7):
        assert request(wardent.address, headers={"CF-Connecting-IP": IP}).status == 200
    passed = 'sum(wardent_http_requests_total{job="wardent", verdict="passed"})'
    wait_until("the requests are counted", lambda: prometheus.number(passed) == 7, 30)
    by_route = 'sum(wardent_route_requests_total{route="defaults", verdict="passed"})'
    assert prometheus.number(by_route) == 7
    assert prometheus.number('up{job="wardent", cluster="main"}') == 1
    age = "time() - wardent_canary_last_success_timestamp_seconds"
    assert abs(prometheus.number(age) or 99) < 10
    assert prometheus.number("process_resident_memory_bytes") > 1_000_000
    # Prometheus knows from OpenMetrics what each family is.
    about = prometheus.get("metadata?metric=wardent_http_sent_bytes")["wardent_http_sent_bytes"]
    assert (about[0]["type"], about[0]["unit"]) == ("counter", "bytes")

    shipped = yaml.safe_load((OPS / "prometheus/alerts.yaml").read_text())["groups"]
    names = [rule["alert"] for group in shipped for rule in group["rules"]]

    def health() -> dict[str, str]:
        groups = prometheus.get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    wait_until("every rule is evaluated", lambda: health() == dict.fromkeys(names, "ok"), 30)
    # All is well, and the way to whoever is called is alive.
    all_is_well = {"WardentAlertsFlow": "firing"}
    wait_until("nothing else fires", lambda: prometheus.alerts() == all_is_well, 30)


@pytest.mark.timeout(120)
def test_prometheus_notices_a_refused_edit_and_a_wardent_that_is_gone(
    watched: tuple[Wardent, Prometheus],
) -> None:
    wardent, prometheus = watched
    wait_until("it is up", lambda: prometheus.number('up{job="wardent"}') == 1, 30)
    wardent.write_policy("mode: nonsense\n")
    wait_until(
        "the refused edit fires",
        lambda: prometheus.alerts().get("WardentReloadFailed") == "firing",
        30,
    )
    wardent.stop()
    wait_until("no scrape comes through", lambda: "WardentDown" in prometheus.alerts(), 30)
