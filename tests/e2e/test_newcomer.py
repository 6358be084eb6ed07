"""docs/newcomer.md, followed word by word in a machine that has nothing of it yet."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rig import Machine, wardent_binary

# In place of cargo: the build that the page asks for was done before the tests, by the same command (and with the mirror).
CARGO = """#!/bin/sh
if [ "$*" = "build --locked --release" ]; then
    install -D {binary} target/release/wardent
else
    exec {cargo} "$@"
fi
"""
NEXT = "--- the next block ---"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def shows(said: str, shown: str) -> str | None:
    """The first line that is shown and was not said, in this order; `…` stands for anything."""
    lines = iter(said.splitlines())
    for line in shown.splitlines():
        parts = [re.escape(part) for part in line.split("…")]
        pattern = re.compile(".*".join(parts))
        if not any(pattern.fullmatch(each.rstrip()) for each in lines):
            return line
    return None


@pytest.fixture
def wheels(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """What the site needs from PyPI, for a machine that cannot reach it."""
    folder = tmp_path_factory.mktemp("wheels")
    site, pinned = "examples/django/requirements.txt", "tests/requirements.txt"
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        + ["download", "--only-binary", ":all:", "--dest", str(folder)]
        + ["--requirement", site, "--constraint", pinned],
        cwd=repository,
        check=True,
        timeout=100,
    )
    return folder


@pytest.mark.timeout(300)
def test_the_page_leads_to_a_protected_site(
    machine: Machine, wheels: Path, repository: Path
) -> None:
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin"
    machine.write("/etc/pip.conf", f"[global]\nno-index = yes\nfind-links = {wheels}\n")
    machine.write(
        "/usr/local/bin/cargo",
        CARGO.format(binary=wardent_binary(), cargo=cargo / "cargo"),
        mode="755",
    )
    machine.run(f"git -c safe.directory='*' clone --quiet file://{repository} /root/wardent")

    page = blocks((repository / "docs" / "newcomer.md").read_text())
    steps = [text for language, text in page if language == "sh"]
    assert len(steps) >= 7
    script = f"\necho '{NEXT}'\n".join(steps)
    done = machine.run(
        f"cd /root/wardent\nPATH=$PATH:{cargo}\n{script}", check=False, deadline_s=280
    )
    assert done.returncode == 0, done.stdout
    said = iter(done.stdout.split(NEXT + "\n"))
    last = ""
    for language, text in page:
        if language == "sh":
            last = next(said)
            print(text, last, sep="\n")
        else:
            missing = shows(last, text)
            assert missing is None, f"no {missing!r} in:\n{last}"
