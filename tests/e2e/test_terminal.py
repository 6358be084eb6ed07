"""What commands look like on a terminal: colours, and `wardent top` with its keys. tmux plays the terminal."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from rig import Wardent, request, wait_until, wardent_binary
from rig.apps import answer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
HOSTILE = "evil\x9b2J"


class Terminal:
    """A tmux of its own, with one screen."""

    def __init__(self, *command: str) -> None:
        self.socket = f"wardent-{uuid.uuid4().hex}"
        size = ("-x", "150", "-y", "30")
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, *command)

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.socket, *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout

    def shows(self, words: str) -> str:
        """The screen, as soon as the words are on it."""
        screen = ""

        def seen() -> bool:
            nonlocal screen
            screen = self.tmux("capture-pane", "-p", "-e")
            return words in screen

        wait_until(f"the screen shows {words!r}", seen)
        return screen

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], capture_output=True, timeout=10)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    assert shutil.which("tmux"), "tmux is not installed"
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.fixture
def wardent(rig) -> Wardent:
    app = rig.raw_upstream(answer(ANSWER))
    wardent = rig.wardent(app.address)
    for number in range(12):
        client = "198.51.100.7" if number < 9 else "203.0.113.9"
        headers = {"CF-Connecting-IP": client, "User-Agent": "test"}
        assert request(wardent.address, f"/{number}", headers=headers).status == 200
    return wardent


def command(wardent: Wardent, *arguments: str) -> list[str]:
    # The shell stays, so that what is left on the screen can be seen.
    words = [str(wardent_binary()), *arguments, "--config", str(wardent.config_file)]
    quoted = " ".join(f"'{word}'" for word in words)
    return ["sh", "-c", f"{quoted}; echo left with $?; cat"]


def test_top_is_live_and_bans_by_a_key(wardent: Wardent, terminals: list[Terminal]) -> None:
    terminal = Terminal(*command(wardent, "top"))
    terminals.append(terminal)
    terminal.shows("203.0.113.9")
    screen = terminal.shows("wardent serving")
    assert screen.index("198.51.100.7") < screen.index("203.0.113.9")
    headers = {"CF-Connecting-IP": "192.0.2.9", "User-Agent": "test"}
    for _ in range(20):
        request(wardent.address, "/late", headers=headers)
    terminal.shows("192.0.2.9")
    terminal.keys("Home")
    terminal.keys("b")
    terminal.shows("ban 192.0.2.9 for 1h? y/N")
    terminal.keys("y")
    terminal.shows("192.0.2.9 is banned for 1h")
    bans = wardent.api("bans")["bans"]
    assert [ban["target"] for ban in bans] == ["192.0.2.9"]
    assert request(wardent.address, "/", headers=headers).status == 403
    terminal.keys("e")
    terminal.shows("refused with 403 banned")
    terminal.keys("x")
    terminal.keys("Tab")
    terminal.shows("by route, sorted by requests")
    terminal.keys("?")
    terminal.shows("ban the client of the row")
    terminal.keys("q")
    terminal.keys("q")
    # The shell's own screen is back.
    terminal.shows("left with 0")


def test_status_has_colours_on_a_terminal_alone(
    wardent: Wardent, terminals: list[Terminal]
) -> None:
    terminal = Terminal(*command(wardent, "status"))
    terminals.append(terminal)
    screen = terminal.shows("left with 0")
    assert "\x1b[32mserving" in screen
    plain = Terminal("env", "NO_COLOR=1", *command(wardent, "status"))
    terminals.append(plain)
    screen = plain.shows("left with 0")
    assert "\x1b[32m" not in screen
    assert "\x1b" not in wardent.cli("status").stdout


def test_top_shows_it_once_where_there_is_no_terminal(wardent: Wardent) -> None:
    done = wardent.cli("top")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("REQUESTS")
    assert lines[1].split()[0] == "9" and lines[1].endswith("198.51.100.7")
    refused = wardent.cli("top", "--window", "1h")
    assert refused.returncode == 1
    assert "`window`: from 1s to 5m" in refused.stderr


def test_what_strangers_write_moves_no_cursor(wardent: Wardent) -> None:
    headers = {"CF-Connecting-IP": "198.51.100.7", "User-Agent": HOSTILE}
    assert request(wardent.address, "/x", headers=headers).status == 200
    wait_until(
        "it is in the log",
        lambda: "evil" in wardent.cli("top", "--by", "user-agent").stdout,
    )
    for arguments in (
        ("top", "--by", "user-agent"),
        ("top", "--by", "user-agent", "--output", "json"),
        ("events", "query"),
        ("events", "query", "--output", "json"),
        ("status",),
        ("status", "--output", "json"),
    ):
        shown = wardent.cli(*arguments).stdout
        assert all(c == "\n" or c.isprintable() and ord(c) < 127 for c in shown), arguments
