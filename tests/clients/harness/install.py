"""Brings foreign software, pinned, into a cache outside the repository, by each language's own package client.

The cache is `WARDENT_CLIENTS_CACHE`, or `wardent-clients` in the user's cache directory.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.process import Missing

PROGRAMS = Path(__file__).resolve().parent.parent / "programs"
LIBRDKAFKA = "rdkafka-sys-4.10.0+2.12.1"

# What the clients' own test suites ask for, beside pytest.
SUITE_WANTS = ("pytest==9.2.0", "pytest-mock==3.17.0", "pytest-timeout==2.4.0")
CODECS = ("lz4==4.4.5", "python-snappy==0.7.3", "zstandard==0.25.0", "crc32c==2.9.post0")

# Client: what pip installs into its venv.
PYTHON = {
    "confluent-kafka": ("confluent-kafka==2.16.1",),
    "aiokafka": ("aiokafka==0.14.0", "cramjam==2.14.0"),
    "kafka-python-2.0.2": ("kafka-python==2.0.2", "lz4==4.4.5"),
    "kafka-python-2.3.0": ("kafka-python==2.3.0", *CODECS, *SUITE_WANTS),
    "kafka-python-3.0.12": ("kafka-python==3.0.12", *CODECS, *SUITE_WANTS),
    # ClickHouse inside Python; it reads no Kafka.
    "chdb": ("chdb-core==26.9.0",),
}


def cache() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wardent-clients"
    return Path(os.environ.get("WARDENT_CLIENTS_CACHE", default))


def call(
    what: str, command: Sequence[str | Path], cwd: Path | None = None, seconds: int = 600
) -> str:
    """What the command says. Raises Missing when it cannot do what it should."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{what}: {error}") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise Missing(f"{what}: `{' '.join(words[:4])} …` failed: {' | '.join(said)}")
    return done.stdout


def tool(name: str) -> str:
    """A program of this machine."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed")
    return path


def made(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache, as `make` leaves it; made anew when the recipe has changed."""
    place = cache() / name
    stamp = place / ".made"
    wanted = hashlib.sha256(recipe.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place)
        stamp.write_text(wanted)
    return place


@functools.cache
def python(name: str) -> Path:
    """The interpreter of a venv with one Python client in it."""
    wants = PYTHON[name]

    def make(place: Path) -> None:
        call(name, [sys.executable, "-m", "venv", place])
        pip = [place / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        call(name, [*pip, *wants])

    recipe = f"{sys.version} {' '.join(wants)}"
    return made(name, recipe, make) / "bin/python"


@functools.cache
def kcat() -> str:
    """Debian's."""
    return tool("kcat")


@functools.cache
def node() -> Path:
    """A directory with the JavaScript programs and all they import."""
    npm, sources = tool("npm"), PROGRAMS / "node"
    lock = (sources / "package-lock.json").read_text()

    def make(place: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(sources / name, place)
        call("npm", [npm, "ci", "--no-audit", "--no-fund"], place)

    place = made("node", lock, make)
    # Imports are looked for beside the file that names them.
    for program in sources.glob("*.mjs"):
        shutil.copy(program, place)
    return place


@dataclass(frozen=True)
class Java:
    """Class paths: of Kafka's jars, and of our program with them."""

    jars: str
    program: str


@functools.cache
def java() -> Java:
    """Kafka's own jars, with the client, the console tools and the broker, from Maven Central."""
    maven, javac, _ = tool("mvn"), tool("javac"), tool("java")
    pom, source = PROGRAMS / "java/pom.xml", PROGRAMS / "java/Client.java"

    def jars(place: Path) -> None:
        shutil.copy(pom, place)
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
        call("Kafka's jars", [maven, "--quiet", "--batch-mode", *copy], place)

    path = f"{made('kafka-jars', pom.read_text(), jars) / 'jars'}/*"

    def program(place: Path) -> None:
        call("the Java program", [javac, "-d", place, "-cp", path, source])

    built = made("java-program", source.read_text() + pom.read_text(), program)
    return Java(jars=path, program=f"{built}:{path}")


@functools.cache
def franz_go() -> Path:
    """Our program over franz-go, built."""
    go, sources = tool("go"), PROGRAMS / "go"
    names = ("main.go", "go.mod", "go.sum")

    def make(place: Path) -> None:
        for name in names:
            shutil.copy(sources / name, place)
        call("franz-go", [go, "build", "-o", "franz-go", "."], place)

    return made("franz-go", "".join((sources / name).read_text() for name in names), make) / "franz-go"


@functools.cache
def librdkafka() -> Path:
    """librdkafka's sources from the crate that ships them, built with its tests and rdkafka_performance."""
    cargo, _, _ = tool("cargo"), tool("make"), tool("c++")
    crate, _, version = LIBRDKAFKA.rpartition("-")

    def make(place: Path) -> None:
        # A package that only names the crate, so that cargo fetches and checks it.
        (place / "src").mkdir()
        (place / "src/lib.rs").write_text("")
        (place / "Cargo.toml").write_text(
            '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n\n'
            f'[dependencies]\n{crate} = "={version}"\n\n[workspace]\n'
        )
        call("librdkafka", [cargo, "vendor", "--quiet", "vendor"], place)
        shutil.move(place / "vendor" / crate / "librdkafka", place / "librdkafka")
        shutil.rmtree(place / "vendor")
        built = place / "librdkafka"
        # cargo leaves out who may run a file.
        for script in [built / "configure", built / "lds-gen.py", *built.glob("mklove/**/*")]:
            if script.is_file():
                script.chmod(0o755)
        options = ["--disable-curl", "--disable-sasl", "--disable-gssapi"]
        call("librdkafka", ["./configure", *options], built)
        jobs = f"-j{os.cpu_count()}"
        call("librdkafka", ["make", jobs, "libs"], built, 1_800)
        call("librdkafka", ["make", jobs, "-C", "tests", "build"], built, 1_800)
        call("librdkafka", ["make", "-C", "examples", "rdkafka_performance"], built)

    return made("librdkafka", f"{LIBRDKAFKA} 1", make) / "librdkafka"


@functools.cache
def kafka_python_sources(version: str) -> Path:
    """The source package of kafka-python, which has its integration suite in it."""
    name = f"kafka-python-{version}"
    interpreter = python(name)

    def make(place: Path) -> None:
        download = [interpreter, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        call(name, [*download, f"kafka-python=={version}", "-d", place], place)
        (archive,) = place.glob("*.tar.gz")
        shutil.unpack_archive(archive, place, filter="data")

    (found,) = made(f"{name}-sources", version, make).glob("kafka_python-*/")
    return found


@functools.cache
def franz_go_sources() -> Path:
    """The module of franz-go as the proxy has it, with its tests, writable and with kfake's import at hand."""
    go = tool("go")
    version = "v1.22.2"

    def make(place: Path) -> None:
        (place / "go.mod").write_text("module fetch\n\ngo 1.25\n")
        call("franz-go", [go, "mod", "download", f"github.com/twmb/franz-go@{version}"], place)
        home = call("franz-go", [go, "env", "GOMODCACHE"]).strip()
        shutil.copytree(Path(home) / f"github.com/twmb/franz-go@{version}", place / "franz-go")
        call("franz-go", ["chmod", "-R", "u+w", place / "franz-go"])
        call("franz-go", [go, "test", "-c", "-o", "kgo.test", "./pkg/kgo"], place / "franz-go", 1_200)

    return made("franz-go-sources", version, make) / "franz-go"
