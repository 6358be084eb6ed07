"""kcat, told by its own arguments and read by its own output."""

import re
import signal
import subprocess
import sys
from typing import Any

from contract import arguments, flush, numbers, pair, record, say

FORMAT = r"%p\t%o\t%T\t%k\t%s\n"


def main() -> None:
    options = arguments()
    {"produce": produce, "consume": consume, "time": time, "group": group}[options.command](options)
    flush()


def kcat(options: Any, *more: str) -> list[str]:
    return ["kcat", "-b", options.bootstrap, *more]


def produce(options: Any) -> None:
    settings = ["enable.idempotence=true", "partitioner=murmur2_random", "linger.ms=5"]
    command = kcat(options, "-P", "-t", options.topic, "-K", r"\t", "-z", options.codec)
    command += [word for setting in settings for word in ("-X", setting)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.stdin
        for number in numbers(options):
            child.stdin.write(b"%s\t%s\n" % pair(number))
            if options.rate:
                child.stdin.flush()
    assert child.returncode == 0, f"kcat -P ended with {child.returncode}"
    # It has waited for every acknowledgement, and tells none.
    say(done=options.count)


def consume(options: Any) -> None:
    command = kcat(options, "-C", "-q", "-e", "-o", "beginning", "-t", options.topic, "-f", FORMAT)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    lines = done.stdout.splitlines()
    for line in lines:
        show(line)
    say(done=len(lines))


def show(line: bytes) -> None:
    partition, offset, timestamp, key, value = line.split(b"\t")
    record(int(partition), int(offset), int(timestamp), key, value)


def time(options: Any) -> None:
    listing = subprocess.run(
        kcat(options, "-L", "-t", options.topic), capture_output=True, text=True, check=True
    )
    partitions = re.findall(r"^ +partition (\d+), ", listing.stdout, re.MULTILINE)
    asked = [word for one in partitions for word in ("-t", f"{options.topic}:{one}:{options.time}")]
    done = subprocess.run(kcat(options, "-Q", *asked), capture_output=True, text=True, check=True)
    for partition, offset in re.findall(r"\[(\d+)\] offset (-?\d+)", done.stdout):
        say(offset=[int(partition), int(offset)])
    say(done=len(partitions))


def group(options: Any) -> None:
    settings = [
        "auto.offset.reset=earliest",
        "auto.commit.interval.ms=200",
        "session.timeout.ms=6000",
        "heartbeat.interval.ms=500",
    ]
    command = kcat(options, "-u", "-f", FORMAT)
    command += [word for setting in settings for word in ("-X", setting)]
    command += ["-G", options.group, options.topic]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    assert child.stdout
    for line in child.stdout:
        if line.startswith(b"%"):
            rebalanced(line.decode())
        else:
            show(line.rstrip(b"\n"))
        flush()
    assert child.wait() == 0, f"kcat -G ended with {child.returncode}"
    say(left=True)


def rebalanced(line: str) -> None:
    sys.stderr.write(line)
    if "assigned:" in line:
        say(assigned=sorted(int(one) for one in re.findall(r" \[(\d+)\]", line.split("assigned:")[1])))
    elif "revoked:" in line:
        say(assigned=[])


main()
