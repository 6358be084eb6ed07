"""The Debian package, installed, upgraded, removed and purged by dpkg in a machine of its own."""

import shutil
import subprocess
from pathlib import Path

import pytest
from rig import Machine, wait_until

SERVES = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9901/readyz"


def listing(machine: Machine) -> set[str]:
    """All that has `wardent` in its path, wherever a package puts something."""
    found = machine.run(
        "find /etc /usr /var /opt /lib -xdev -ipath '*wardent*' 2>/dev/null || true",
        deadline_s=100,
    ).stdout
    # What dpkg and the journal remember is theirs.
    theirs = ("/var/lib/dpkg/", "/var/log/")
    return {path for path in found.splitlines() if not path.startswith(theirs)}


def newer(package: Path, folder: Path, script: str) -> Path:
    """The package as a next version with some files changed; `script` runs where it is unpacked."""
    root, made = folder / "root", folder / "wardent_next.deb"
    subprocess.run(["dpkg-deb", "-R", package, root], check=True, timeout=60)
    control = root / "DEBIAN" / "control"
    text = control.read_text()
    assert "\nVersion: " in text
    control.write_text(text.replace("\nVersion: ", "\nVersion: 9."))
    subprocess.run(["sh", "-eu", "-c", script], cwd=root, check=True, timeout=30)
    build = ["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", root, made]
    subprocess.run(build, check=True, stdout=subprocess.PIPE, timeout=60)
    return made


def dpkg(machine: Machine, *words: str | Path) -> str:
    command = " ".join(map(str, words))
    return machine.run(
        f"export DEBIAN_FRONTEND=noninteractive\n{command}", deadline_s=100
    ).stdout


@pytest.mark.timeout(240)
def test_the_package_comes_and_goes(
    machine: Machine, package: Path, tmp_path: Path
) -> None:
    before = listing(machine)

    said = dpkg(machine, "dpkg -i", package)
    assert "systemctl enable --now wardent" in said
    modes = machine.run("stat -c '%n %U:%G %a' /etc/wardent /etc/wardent/*").stdout
    assert modes.split("\n")[:3] == [
        "/etc/wardent root:wardent 750",
        "/etc/wardent/policy.yaml root:wardent 640",
        "/etc/wardent/wardent.yaml root:wardent 640",
    ]
    assert machine.run("getent passwd wardent").stdout.strip().endswith("nologin")
    active = machine.run("systemctl is-active wardent.socket", check=False)
    assert active.stdout.strip() == "inactive", "nothing is started unasked"
    # As shipped, it can be used at once.
    machine.run(
        "wardent check; systemctl enable --now wardent.socket wardent.service"
    )
    wait_until("it serves", lambda: machine.run(SERVES, check=False).stdout == "200")

    upgrades(machine, package, tmp_path)

    dpkg(machine, "dpkg -r wardent")
    gone = machine.run("systemctl is-active wardent.socket wardent.service", check=False)
    assert gone.stdout.split() == ["inactive", "inactive"]
    kept = machine.run("ls /etc/wardent /var/lib/wardent").stdout
    assert "policy.yaml" in kept and "log" in kept, "removing keeps what is the user's"

    dpkg(machine, "dpkg -P wardent")
    left = listing(machine) - before
    assert left == set()
    assert machine.run("systemctl --failed --plain --no-legend").stdout.strip() == ""


def upgrades(machine: Machine, package: Path, tmp_path: Path) -> None:
    """Next versions: an edited file stays, a running service is started anew, unless it could not use its files."""
    machine.run("echo '# mine' >> /etc/wardent/policy.yaml")
    machine.write("/etc/wardent/secret", "0" * 32, mode="600")
    started = "systemctl show -p InvocationID --value wardent.service"
    first = machine.run(started).stdout
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()

    change = "echo '# theirs' | tee -a etc/wardent/policy.yaml >> etc/wardent/wardent.yaml"
    next_one = newer(package, folders[0], change)
    dpkg(machine, "dpkg --force-confdef --force-confold -i", next_one)
    assert machine.run("tail -n 1 /etc/wardent/policy.yaml").stdout == "# mine\n"
    assert machine.run("tail -n 1 /etc/wardent/wardent.yaml").stdout == "# theirs\n"
    assert "policy.yaml.dpkg-dist" in machine.run("ls /etc/wardent").stdout
    owner = machine.run("stat -c '%U:%G %a' /etc/wardent/wardent.yaml").stdout
    assert owner == "root:wardent 640\n"
    second = machine.run(started).stdout
    assert second != first, "the new version runs"
    assert machine.run(SERVES).stdout == "200"

    machine.run("echo 'no_such_key: 1' >> /etc/wardent/wardent.yaml")
    said = dpkg(machine, "dpkg --force-confold -i", package)
    assert "the version before runs on" in said and "no_such_key" in said
    assert machine.run(started).stdout == second
    assert machine.run(SERVES).stdout == "200"


@pytest.mark.skipif(not shutil.which("lintian"), reason="lintian is not installed")
@pytest.mark.timeout(240)
def test_lintian_has_nothing_to_say(package: Path) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", package],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_is_in_it(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True, timeout=60)
    for part in (
        "usr/bin/wardent",
        "usr/sbin/wardent-deploy",
        "usr/lib/systemd/system/wardent.service",
        "usr/lib/systemd/system/wardent.socket",
        "usr/lib/sysusers.d/wardent.conf",
        "usr/lib/tmpfiles.d/wardent.conf",
        "usr/share/wardent/nginx/snippets/proxy.conf",
        "usr/share/wardent/ops/prometheus/alerts.yaml",
        "usr/share/doc/wardent/deploying.md",
        "usr/share/man/man1/wardent.1.gz",
        "usr/share/man/man1/wardent-bans-add.1.gz",
        "usr/share/man/man8/wardent-deploy.8.gz",
        "usr/share/bash-completion/completions/wardent",
        "usr/share/zsh/vendor-completions/_wardent",
        "usr/share/fish/vendor_completions.d/wardent.fish",
    ):
        assert (tmp_path / part).is_file(), part
