"""kcat and Kafka's console tools, as an operator types them."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable

from harness import install
from harness.broker import Broker
from harness.checks import new_topic
from harness.process import expect

# What librdkafka turns off, silently, for a broker that does not advertise the right versions.
FEATURES = (
    "ApiVersion BrokerBalancedConsumer BrokerGroupCoordinator IdempotentProducer LZ4 MsgVer2 OffsetTime "
    "SaslAuthReq SaslHandshake ZSTD"
).split()


def kcat(broker: Broker, *words: str, stdin: str = "") -> tuple[str, str]:
    """What kcat prints, and what it complains of."""
    done = subprocess.run(
        [install.kcat(), "-b", broker.address, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    expect(done.returncode == 0, f"kcat {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout, done.stderr


def kcat_features(broker: Broker) -> None:
    """lz4 and idempotence are really on: librdkafka itself says so, and batches are small."""
    topic, lines = new_topic("features"), "".join(f"key\tvalue {'a' * 100}\n" for _ in range(1_000))
    debug = ("-d", "feature,msg,broker,eos", "-X", "linger.ms=50", "-X", "enable.idempotence=true")
    _, said = kcat(broker, "-P", "-t", topic, "-K", r"\t", "-z", "lz4", *debug, stdin=lines)
    (*_, enabled) = re.findall(r"Updated enabled protocol features to (\S+)", said)
    missing = set(FEATURES) - set(enabled.split(","))
    expect(not missing, f"librdkafka does without {sorted(missing)}: it found {enabled}")
    expect("not compressing batch" not in said, "librdkafka did not compress")
    expect(re.search(r"Acquired PID\{Id:\d+,Epoch:\d+\}", said), "no producer id was given")
    sizes = re.findall(r"Produce MessageSet with (\d+) message\(s\) \((\d+) bytes, .*MsgVersion 2", said)
    count, size = (sum(int(pair[at]) for pair in sizes) for at in (0, 1))
    expect(count == 1_000, f"{count} messages went in sets of version 2")
    expect(size < 50_000, f"they took {size} bytes, which lz4 would have made less of")
    read, _ = kcat(broker, "-C", "-q", "-e", "-o", "beginning", "-t", topic, "-K", r"\t")
    expect(sorted(read.splitlines()) == lines.splitlines(), "what is read is not what was written")


def kcat_listing(broker: Broker) -> None:
    """`-L -J`: brokers, controller, topics; an address that a client elsewhere in the process can use."""
    topic = new_topic("listing")
    kcat(broker, "-P", "-t", topic, stdin="one\n")
    listing = json.loads(kcat(broker, "-L", "-J")[0])
    expect([one["name"] for one in listing["brokers"]] == [broker.address], f"{listing['brokers']}")
    expect(listing["controllerid"] == listing["brokers"][0]["id"], f"{listing['controllerid']}")
    (made,) = [one for one in listing["topics"] if one["topic"] == topic]
    expect(len(made["partitions"]) == 4, f"{topic} has {len(made['partitions'])} partitions")


# Kafka's console tools


PACKAGE = "org.apache.kafka.tools"


def console(tool: str, *words: str, stdin: str = "") -> str:
    """What one of Kafka's tools says. It must end well."""
    command = [install.tool("java"), "-XX:TieredStopAtLevel=1", "-cp", install.java().jars, tool]
    done = subprocess.run(
        [*command, *words], input=stdin, capture_output=True, text=True, timeout=90, check=False
    )
    errors = "\n".join(line for line in done.stderr.splitlines() if "SLF4J" not in line)
    told = f"{tool} {' '.join(words)}: {done.returncode}\n{done.stdout[-1_500:]}\n{errors[-1_500:]}"
    expect(done.returncode == 0, told)
    return done.stdout + errors


def topics(broker: Broker) -> None:
    """kafka-topics: a topic's life."""
    tool, at, topic = f"{PACKAGE}.TopicCommand", ("--bootstrap-server", broker.address), new_topic("life")
    made = ("--partitions", "2", "--replication-factor", "1", "--config", "retention.ms=60000")
    console(tool, *at, "--create", "--topic", topic, *made)
    expect(topic in console(tool, *at, "--list").split(), "it is not listed")
    told = console(tool, *at, "--describe", "--topic", topic)
    expect(re.search(r"PartitionCount: 2\s+ReplicationFactor: 1", told), told)
    expect("retention.ms=60000" in told and "Leader: 1" in told, told)
    console(tool, *at, "--alter", "--topic", topic, "--partitions", "3")
    told = console(tool, *at, "--describe", "--topic", topic)
    expect("PartitionCount: 3" in told and "Partition: 2" in told, told)
    console(tool, *at, "--delete", "--topic", topic)
    expect(topic not in console(tool, *at, "--list").split(), "it is still listed")


def configs(broker: Broker) -> None:
    """kafka-configs: set, shown with where it comes from, taken back."""
    tool, at, topic = "kafka.admin.ConfigCommand", ("--bootstrap-server", broker.address), new_topic("set")
    of = ("--entity-type", "topics", "--entity-name", topic)
    console(f"{PACKAGE}.TopicCommand", *at, "--create", "--topic", topic)
    console(tool, *at, "--alter", *of, "--add-config", "retention.ms=120000,cleanup.policy=compact")
    told = console(tool, *at, "--describe", *of)
    expect("retention.ms=120000" in told and "DYNAMIC_TOPIC_CONFIG:retention.ms=120000" in told, told)
    expect("cleanup.policy=compact" in told, told)
    told = console(tool, *at, "--describe", *of, "--all")
    for name in ("max.message.bytes", "segment.bytes", "compression.type", "min.insync.replicas"):
        expect(f"{name}=" in told, f"{name} is not told:\n{told}")
    console(tool, *at, "--alter", *of, "--delete-config", "retention.ms")
    expect("retention.ms=120000" not in console(tool, *at, "--describe", *of), "it is still set")
    node = re.search(r"\(id: (\d+) ", console(f"{PACKAGE}.BrokerApiVersionsCommand", *at))
    expect(node, "kafka-broker-api-versions names no broker")
    assert node
    told = console(tool, *at, "--describe", "--entity-type", "brokers", "--entity-name", node[1], "--all")
    expect("sensitive=" in told, told)


def groups(broker: Broker) -> None:
    """kafka-console-producer and -consumer, kafka-consumer-groups, kafka-get-offsets, kafka-delete-records."""
    at, topic, group = ("--bootstrap-server", broker.address), new_topic("console"), new_topic("group")
    keyed = ("--property", "parse.key=true", "--property", "key.separator=:")
    lines = "".join(f"k{number}:v{number}\n" for number in range(20))
    console(f"{PACKAGE}.ConsoleProducer", *at, "--topic", topic, *keyed, stdin=lines)
    reading = ("--from-beginning", "--max-messages", "20", "--timeout-ms", "20000")
    shown = ("--property", "print.key=true", "--property", "key.separator=:")
    told = console(
        f"{PACKAGE}.consumer.ConsoleConsumer", *at, "--topic", topic, "--group", group, *reading, *shown
    )
    got = [line for line in told.splitlines() if re.fullmatch(r"k\d+:v\d+", line)]
    expect(sorted(got) == sorted(lines.split()), told)

    tool = f"{PACKAGE}.consumer.group.ConsumerGroupCommand"
    expect(group in console(tool, *at, "--list").split(), "the group is not listed")
    told = console(tool, *at, "--describe", "--group", group)
    lags = [int(lag) for lag in re.findall(rf"{topic}\s+\d+\s+\d+\s+\d+\s+(\d+)", told)]
    expect(lags and sum(lags) == 0, told)
    told = console(tool, *at, "--describe", "--group", group, "--state")
    expect("Empty" in told, told)
    reset = ("--reset-offsets", "--to-earliest", "--topic", topic, "--execute")
    console(tool, *at, "--group", group, *reset)
    told = console(tool, *at, "--describe", "--group", group)
    lags = [int(lag) for lag in re.findall(rf"{topic}\s+\d+\s+\d+\s+\d+\s+(\d+)", told)]
    expect(sum(lags) == 20, told)
    console(tool, *at, "--delete", "--group", group)
    expect(group not in console(tool, *at, "--list").split(), "the group is still listed")

    told = console(f"{PACKAGE}.GetOffsetShell", *at, "--topic", topic)
    ends = {int(p): int(end) for p, end in re.findall(rf"{topic}:(\d+):(\d+)", told)}
    expect(sum(ends.values()) == 20, told)
    partition = max(ends, key=lambda one: ends[one])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        wanted = {"topic": topic, "partition": partition, "offset": ends[partition] - 1}
        json.dump({"partitions": [wanted], "version": 1}, file)
        file.flush()
        told = console(f"{PACKAGE}.DeleteRecordsCommand", *at, "--offset-json-file", file.name)
    expect(f"low_watermark: {ends[partition] - 1}" in told, told)
    told = console(f"{PACKAGE}.GetOffsetShell", *at, "--topic-partitions", f"{topic}:{partition}", "--time", "-2")
    expect(f"{topic}:{partition}:{ends[partition] - 1}" in told, told)


def figures(broker: Broker) -> None:
    """kafka-producer-perf-test, kafka-consumer-perf-test, kafka-log-dirs, kafka-cluster, kafka-verifiable-producer."""
    at, topic = ("--bootstrap-server", broker.address), new_topic("perf")
    properties = (f"bootstrap.servers={broker.address}", "compression.type=lz4")
    size = ("--num-records", "20000", "--record-size", "250", "--throughput", "-1")
    told = console(
        f"{PACKAGE}.ProducerPerformance", "--topic", topic, *size, "--producer-props", *properties
    )
    expect("20000 records sent" in told, told)
    told = console(f"{PACKAGE}.ConsumerPerformance", *at, "--topic", topic, "--messages", "20000")
    expect(re.search(r", 20000, |, 2\d{4}, ", told), told)
    told = console(f"{PACKAGE}.LogDirsCommand", *at, "--describe", "--topic-list", topic)
    sizes = [int(size) for size in re.findall(rf'"partition":"{topic}-\d+","size":(\d+)', told)]
    expect(len(sizes) == 4 and sum(sizes) > 0, told)
    expect("Cluster ID: " in console(f"{PACKAGE}.ClusterTool", "cluster-id", *at), "no cluster id")
    told = console(f"{PACKAGE}.VerifiableProducer", *at, "--topic", topic, "--max-messages", "5")
    expect('"sent":5,"acked":5' in told, told)


Check = Callable[[Broker], None]

CONSOLE: dict[str, Check] = {
    "topics": topics,
    "configs": configs,
    "groups": groups,
    "figures": figures,
}
