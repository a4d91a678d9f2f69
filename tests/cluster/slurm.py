"""A real Slurm on this machine: one controller and two nodes, each node in a network namespace of its own.

    python tests/cluster/slurm.py COMMAND...      # runs a command with SLURM_CONF set, then stops the cluster

It wants root, Debian's `slurmctld slurmd slurm-client munge iproute2`, and a system that permits namespaces. Nothing of
the machine's own configuration is read or written.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("node1", "node2")
NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "munged", "ip", "nsenter", "unshare", "setpriv")
DIE_TOGETHER = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends with this process, however that ends."""

CONFIGURATION = """
ClusterName=tests
SlurmctldHost=controller({network}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldPort={port}
SlurmdPort={port_of_nodes}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=15
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=15
PartitionName=high Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Return why no cluster can be started here; empty where one can."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    if os.geteuid():
        return "only root can start it"
    done = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


class Slurm:
    """The cluster; `conf` is what SLURM_CONF must be for its clients."""

    def __init__(self, folder: Path, cpus: int = 4) -> None:
        self.folder, self.cpus = folder, cpus
        self.conf = folder / "slurm.conf"
        self.private = folder / "private"
        """A folder that the nodes do not see."""
        self.bridge = f"mt{secrets.token_hex(3)}"
        self.network = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.holders: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons and wait until both nodes are idle. Raise RuntimeError where they do not come up."""
        (self.folder / "state").mkdir(parents=True)
        self.private.mkdir()
        port = 20000 + secrets.randbelow(20000)
        nodes = "\n".join(f"NodeName={node} NodeHostname={node} NodeAddr={self.network}.{i} CPUs={self.cpus} "
                          f"RealMemory=8000 State=UNKNOWN" for i, node in enumerate(NODES, 11))
        self.conf.write_text(CONFIGURATION.format(folder=self.folder, network=self.network, port=port,
                                                  port_of_nodes=port + 1, nodes=nodes))
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self._spawn("munged", "munged", "--foreground", "--force", f"--key-file={key}", "--num-threads=2",
                    f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munged.pid",
                    f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munged.seed")
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.network}.1/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for i, node in enumerate(NODES, 11):
            self._wire(node, f"{self.network}.{i}", f"{self.bridge}{i}")
        self._spawn("slurmctld", "unshare", "--uts", "sh", "-c",
                    'hostname controller; exec slurmctld -D -c -f "$0"', str(self.conf))
        for node in NODES:
            self.boot(node)
        self.wait("idle", 120)

    def _wire(self, node: str, address: str, link: str) -> None:
        """Give a node its namespace, held by a process that sleeps, and a cable to the bridge."""
        holder = subprocess.Popen([*DIE_TOGETHER, "unshare", "--net", "sleep", "infinity"])
        self.holders[node] = holder
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{holder.pid}/ns/net").st_ino == own:
            time.sleep(0.01)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _ip("link", "set", link, "master", self.bridge, "up")
        for arguments in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                          ["link", "set", "lo", "up"]):
            subprocess.run([*self.inside(node), "ip", *arguments], check=True)

    def inside(self, node: str) -> list[str]:
        """Return the command that runs another one in a node's network."""
        return ["nsenter", f"--net=/proc/{self.holders[node].pid}/ns/net"]

    def boot(self, node: str) -> None:
        """Start a node's daemon."""
        self._spawn(node, *self.inside(node), "unshare", "--uts", "--mount", "sh", "-c",
                    'hostname "$1"; mount -t tmpfs none "$2"; exec slurmd -D -N "$1" -f "$0"',
                    str(self.conf), node, str(self.private))

    def kill(self, node: str) -> None:
        """Let a node vanish: all that runs in its network is killed at once."""
        mine = os.stat(f"/proc/{self.holders[node].pid}/ns/net").st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(process.name) != self.holders[node].pid and os.stat(process / "ns" / "net").st_ino == mine:
                    os.kill(int(process.name), signal.SIGKILL)
        self.running.pop(node).wait()

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen([*DIE_TOGETHER, *command], stdout=out, stderr=out,
                                                  stdin=subprocess.DEVNULL, start_new_session=True)

    def ask(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        done = subprocess.run(command, env=os.environ | {"SLURM_CONF": str(self.conf)}, capture_output=True, text=True)
        return done.stdout

    def wait(self, state: str, seconds: float) -> None:
        """Wait until all nodes are in a state. Raise RuntimeError where they do not get there."""
        end = time.monotonic() + seconds
        while self.ask("sinfo", "-h", "-N", "-p", "low", "-o", "%t").split() != [state] * len(NODES):
            if time.monotonic() > end:
                files = sorted(self.folder.glob("*.[lo][ou][gt]"))
                logs = "".join(path.read_text(errors="replace")[-1500:] for path in files)
                raise RuntimeError(f"Slurm did not come up: {self.ask('sinfo', '-N', '-l')}\n{logs}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End all that was started."""
        for process in [*reversed(self.running.values())]:
            process.kill()
            process.wait()
        for node, holder in self.holders.items():
            self.running.setdefault(node, holder)
            self.kill(node)
            holder.kill()
            holder.wait()
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def cluster() -> Iterator[Slurm]:
    """Run a cluster in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mtrun-slurm-") as folder:
        slurm = Slurm(Path(folder))
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.stop()


if __name__ == "__main__":
    if why := missing():
        sys.exit(f"no Slurm here: {why}")
    with cluster() as started:
        sys.exit(subprocess.run(sys.argv[1:], env=os.environ | {"SLURM_CONF": str(started.conf)}).returncode)
