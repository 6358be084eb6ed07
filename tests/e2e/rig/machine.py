"""A machine of its own: this one's files under an overlay, systemd as process 1, no network but its own.

Whatever is installed, started, changed or broken in it is gone with it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rig.process import wait_until

# In namespaces of its own. $1: an empty directory.
BEGIN = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
ip link add eth0 type veth peer name cable
"""
BOOT = r"""
unified="$(stat -fc %T /sys/fs/cgroup)"
cd "$1/root"
mount -t sysfs sysfs sys
if [ "$unified" = cgroup2fs ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
# /tmp stays as it is: the files of tests may be there.
mkdir run/tmpfiles.d
ln -s /dev/null run/tmpfiles.d/tmp.conf
# Images for containers keep packages from starting services with it.
rm -f usr/sbin/policy-rc.d
ip link set lo up
ip address add 198.51.100.1/24 dev eth0
ip link set eth0 up
ip link set cable up
mkdir -p mnt/outside
pivot_root . mnt/outside
umount -l /mnt/outside
exec env -i container=rig PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target
"""

# What it is called by; a client inside that uses it has the same address.
ADDRESS = "198.51.100.1"

NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")


class CannotBoot(Exception):
    """This machine does not let its tests have another: why."""


class Machine:
    """Boots at once; `stop` ends everything in it."""

    def __init__(self) -> None:
        for tool in ("unshare", "nsenter", "ip", "/lib/systemd/systemd"):
            if not shutil.which(tool):
                raise CannotBoot(f"there is no {tool}")
        if os.geteuid() != 0:
            raise CannotBoot("needs root")
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child=KILL"]
        shell = [*unshare, "bash", "-c"]
        tried = subprocess.run(
            [*shell, BEGIN, "begin", self.directory],
            capture_output=True,
            text=True,
            timeout=30,
        )
        if tried.returncode != 0:
            self.directory.rmdir()
            raise CannotBoot(tried.stderr.strip())
        self.cgroups = [make_cgroup(root) for root in cgroup_roots()]
        enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self.cgroups)
        self.output = self.directory.with_suffix(".out")
        with self.output.open("wb") as output:
            self.child = subprocess.Popen(
                ["sh", "-c", enter + 'exec "$@"', "sh"]
                + [*shell, BEGIN + BOOT, "boot", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until("the machine has booted", self.has_booted, 60)
        except BaseException:
            self.stop()
            raise

    def has_booted(self) -> bool:
        assert self.child.poll() is None, self.output.read_text(errors="replace")
        return (
            bool(self.first())
            and self.run("systemctl is-active basic.target", check=False).returncode
            == 0
        )

    def first(self) -> int:
        """Its process 1, by the number that it has here; 0 as long as there is none."""
        pid = self.child.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                name = Path(f"/proc/{children[0]}/comm").read_text().strip()
                return int(children[0]) if name == "systemd" else 0
        return 0

    def command(self, *words: str | Path) -> list[str]:
        """What runs `words` in it."""
        inside = ["nsenter", f"--target={self.first()}", *NAMESPACES]
        # As somebody has it who has just logged in.
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        env = ["env", "-i", "-C", "/root", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", f"PATH={path}"]
        return [*inside, *env, *map(str, words)]

    def run(
        self, script: str, check: bool = True, deadline_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """A shell script, in it; what it says and complains of comes together."""
        done = subprocess.run(
            self.command("bash", "-euo", "pipefail", "-c", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline_s,
        )
        assert done.returncode == 0 or not check, (
            f"exit status {done.returncode}:\n{script}\n\n{done.stdout}"
        )
        return done

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """A process in it that is not waited for."""
        return subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """A file in it."""
        subprocess.run(
            self.command("install", "-D", "-m", mode, "/dev/stdin", path),
            input=text,
            text=True,
            check=True,
            timeout=30,
        )

    def stop(self) -> None:
        """With process 1, the kernel ends all others of its namespace."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first() or self.child.pid, signal.SIGKILL)
        self.child.wait(30)
        for group in self.cgroups:
            wait_until(f"{group} is gone", lambda group=group: remove_cgroup(group))
        self.output.unlink(missing_ok=True)
        self.directory.rmdir()


def cgroup_roots() -> Sequence[Path]:
    """Where this process is, in every hierarchy that a systemd may mount."""
    roots = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        # The unified one is all there is, or beside those of version 1. No process can enter a new cpuset.
        mounts = ["", "unified"] if not controllers else [controllers]
        for mount in mounts if controllers != "cpuset" else []:
            root = Path("/sys/fs/cgroup", mount.removeprefix("name="), path.lstrip("/"))
            if (root / "cgroup.procs").exists():
                roots.append(root)
    return roots


def make_cgroup(root: Path) -> Path:
    group = root / f"machine-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        group.mkdir()
    except OSError as error:
        raise CannotBoot(f"{group}: {error}") from error
    return group


def remove_cgroup(group: Path) -> bool:
    """Whether it is gone, with all below it: a process that is ending keeps it for a moment."""
    with contextlib.suppress(OSError):
        for below, _, _ in os.walk(group, topdown=False):
            os.rmdir(below)
    return not group.exists()
