"""The clients' own test suites, and the lists of what must pass of them.

`pass/SUITE.txt` names a test a line and may only grow: a listed test that does not pass fails the check, and
one that passes without being listed is told, to be listed. Apache Kafka itself decides what may be asked: what
fails there is no demand on anybody.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from harness import install
from harness.broker import Broker
from harness.process import Failed, Missing

HERE = Path(__file__).resolve().parent.parent
PASS = HERE / "pass"

# Numbers of librdkafka's tests that talk to a broker and need nothing else. The others use its own mock, or
# scripts of a Kafka installation; 0092 and 0129 set what Kafka 4 has removed, 0103 wants three brokers.
LIBRDKAFKA = """
    0001 0002 0003 0005 0007 0008 0011 0012 0013 0014 0015 0016 0017 0018 0019 0020 0021 0022 0026 0029 0030
    0031 0033 0034 0035 0036 0038 0039 0040 0041 0042 0044 0045 0048 0050 0051 0053 0054 0055 0056 0057 0059
    0060 0061 0063 0065 0067 0069 0070 0073 0081 0082 0083 0084 0085 0086 0089 0090 0091 0093 0098 0099 0102
    0110 0111 0112 0113 0114 0118 0122 0123 0125 0127 0130 0132 0137 0140
""".split()

# Those of them that say most in a few seconds.
LIBRDKAFKA_SHORT = "0005 0008 0012 0013 0018 0022 0026 0029 0030 0031 0039 0050 0054 0070 0085 0099".split()

# The rest wants transactions or share groups, or needs no broker.
FRANZ_GO = (
    "TestGroupSimple|TestGroupETL|TestConsumeRegex|TestAddRemovePartitions|TestIssue865|TestPauseIssue489"
    "|TestClient_Produce|TestClient_ProduceLargeMessages"
)


def listed(suite: str) -> set[str]:
    """The tests of `pass/SUITE.txt`."""
    lines = (PASS / f"{suite}.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def judge(suite: str, passed: set[str], said: dict[str, str], only: set[str] | None = None) -> None:
    """Compares with the list. `said` has, of those that did not pass, what they said."""
    wanted = listed(suite)
    if only is not None:
        wanted &= only
    for name in sorted(set(said) - wanted):
        print(f"    no demand, and does not pass: {name}: {brief(said[name])}")
    if new := sorted(passed - wanted):
        print(f"    passes and is not in pass/{suite}.txt: {' '.join(new)}")
    print(f"    {len(passed)} pass, {len(wanted)} are listed")
    if lost := sorted(wanted - passed):
        told = "\n".join(f"{name}: {said.get(name, 'was not run')}" for name in lost)
        raise Failed(f"{len(lost)} of {len(wanted)} listed tests do not pass:\n{told}")


def brief(text: str) -> str:
    return " ".join(text.split())[:160]


def librdkafka(broker: Broker, numbers: Iterable[str] = LIBRDKAFKA, at_once: int = 3) -> None:
    """librdkafka's tests, a process each."""
    place = install.librdkafka() / "tests"
    names = list(numbers)
    with tempfile.TemporaryDirectory(prefix="wardent-librdkafka-") as directory:
        settings = Path(directory) / "test.conf"
        settings.write_text(f"bootstrap.servers={broker.address}\ntest.topic.random=true\n")
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            outcomes = list(pool.map(lambda name: one_of_librdkafka(place, settings, name), names))
    passed = {name for name, said in zip(names, outcomes, strict=True) if said is None}
    said = {name: said for name, said in zip(names, outcomes, strict=True) if said is not None}
    judge("librdkafka", passed, said, only=set(names))


def one_of_librdkafka(place: Path, settings: Path, number: str) -> str | None:
    """Runs a test; says what was wrong with it."""
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": "../src:../src-cpp",
        "RDKAFKA_TEST_CONF": str(settings),
        # From it the tests know what they may ask for.
        "TEST_KAFKA_VERSION": "3.4.0",
        "TESTS": number,
    }
    try:
        done = subprocess.run(
            ["./test-runner", "-p1", "-Q", "-E"],
            cwd=place,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "not within 180 s"
    output = done.stdout.decode(errors="replace")
    if done.returncode == 0 and re.search(rf"\b{number}_\w+ +\| +PASSED", output):
        return None
    telling = r"(?:.*[aA]ssertion failed: .*|.*SKIPPED.*|.*TIMED OUT.*|### .*)"
    lines = re.findall(telling, output) or output.splitlines()[-3:]
    return " | ".join(line.strip("\x1b[0m ") for line in lines[:3])


def kafka_python(broker: Broker, version: str) -> None:
    """kafka-python's integration suite, from its source package."""
    name = f"kafka-python-{version}"
    place, interpreter = install.kafka_python_sources(version), install.python(name)
    # What the package leaves out and the suite imports.
    (place / "test/__init__.py").touch()
    (place / "test/service.py").write_bytes((HERE / "shim/service.py").read_bytes())
    with tempfile.TemporaryDirectory(prefix="wardent-kafka-python-") as directory:
        report = Path(directory) / "report.xml"
        command = [
            *(interpreter, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--timeout=90"),
            *("-o", "log_level=ERROR", "--tb=native", f"--junitxml={report}", "test/integration"),
            *("--ignore=test/integration/test_sasl_integration.py",),
            *("--ignore=test/integration/test_ssl_integration.py",),
        ]
        env = {
            **os.environ,
            "KAFKA_URI": f"kafka://{broker.address}",
            "KAFKA_VERSION": "2.8.0",
            # Only looked for.
            "KAFKA_ROOT": directory,
        }
        try:
            done = subprocess.run(
                command, cwd=place, env=env, capture_output=True, text=True, timeout=1_500, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{name}'s suite: not within 1,500 s") from error
        if not report.exists():
            raise Failed(f"{name}'s suite did not run:\n{(done.stdout + done.stderr)[-2_000:]}")
        passed, said = of_junit(report)
    judge(name, passed, said)


def of_junit(report: Path) -> tuple[set[str], dict[str, str]]:
    """Who passed, and what the others said."""
    passed, said = set(), {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('test.integration.')}::{case.get('name')}"
        trouble = [child for child in case if child.tag in ("failure", "error", "skipped")]
        if trouble:
            said[name] = f"{trouble[0].tag}: {trouble[0].get('message', '')}\n{case_end(trouble[0])}"
        else:
            passed.add(name)
    return passed, said


def case_end(trouble: ElementTree.Element) -> str:
    return "\n".join((trouble.text or "").splitlines()[-6:])


def franz_go(broker: Broker) -> None:
    """franz-go's tests of groups, chains of them, and of its producer."""
    place = install.franz_go_sources()
    env = {
        **os.environ,
        "KGO_SEEDS": broker.address,
        "KGO_TEST_RF": "1",
        "KGO_TEST_RECORDS": "10000",
        "KGO_TEST_MAX_TOPIC_PARTS": "4",
    }
    command = ["../../kgo.test", "-test.timeout=500s", "-test.v", f"-test.run=^({FRANZ_GO})$"]
    try:
        done = subprocess.run(
            command, cwd=place / "pkg/kgo", env=env, capture_output=True, text=True, timeout=560, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed("franz-go's tests: not within 560 s") from error
    passed: set[str] = set()
    said: dict[str, str] = {}
    for verdict, name in re.findall(r"^ *--- (PASS|FAIL|SKIP): (\S+)", done.stdout, re.MULTILINE):
        if verdict == "PASS":
            passed.add(name)
        else:
            said[name] = verdict
    if done.returncode and not said:
        said["all"] = done.stdout[-2_000:] + done.stderr[-2_000:]
    judge("franz-go", passed, said)


def short_librdkafka(broker: Broker) -> None:
    """A few of librdkafka's tests, where they are built already: that takes minutes."""
    if not (install.cache() / "librdkafka/.made").exists():
        raise Missing("librdkafka is not built; `tests/clients/run librdkafka` builds it")
    librdkafka(broker, LIBRDKAFKA_SHORT, at_once=4)
