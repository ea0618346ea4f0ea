"""Two processes on this machine, and what is run in them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.strategies import worker

ROOT = Path(__file__).parents[2]
TORCH = ["ddp", "fsdp", "fsdp2"]
DEEPSPEED = ["zero1", "zero2", "zero3", "zero3_offload"]
STRATEGIES = [*TORCH, *DEEPSPEED]
DEEPSPEED_CONFIGS = ["deepspeed_zero2", "deepspeed_zero3", "deepspeed_zero3_offload"]


#: Jobs that one process does alike, each with the strategies it is run under.
ALIKE = [
    *(("mixed", strategy) for strategy in TORCH),
    *(("accumulated", strategy) for strategy in ("fsdp", "fsdp2")),
    *(("fused", strategy) for strategy in [*TORCH, "zero2"]),
    *(("heads", strategy) for strategy in [*TORCH, "zero2"]),
    *(("lora", strategy) for strategy in ("ddp", "fsdp2", "zero2")),
    *(("recomputed", strategy) for strategy in [*TORCH, "zero2"]),
    *(run for run in (("int8", "ddp"), ("nf4", "ddp"), ("nf4", "fsdp2")) if find_spec("bitsandbytes")),
]


Job = Callable[[str, str], list[dict[str, Any]]]


@dataclass(frozen=True)
class Network:
    """Where nodes meet: the first one's address, the interface of each, and a command that runs another on a node."""

    address: str
    interface: str
    inside: Sequence[Sequence[str]]


LOOPBACK = Network("127.0.0.1", "lo", ((), ()))


@contextmanager
def two_machines() -> Iterator[Network]:
    """Two network namespaces that share nothing but a cable between them; they end with this process at the latest.

    Raises:
        subprocess.CalledProcessError: If this system lets nobody make them.
        FileNotFoundError: If it lacks util-linux or iproute2.
    """
    holders: list[subprocess.Popen[str]] = []

    def inside(node: int) -> list[str]:
        return ["nsenter", f"--target={holders[node].pid}", "--user", "--net", "--preserve-credentials"]

    with ExitStack() as stack:
        for command in (["unshare", "--user", "--map-root-user", "--net"], ["unshare", "--net"]):
            enter = inside(0) if holders else []
            # A namespace lasts as long as its processes, and this one until its input ends.
            hold = [*enter, *command, "sh", "-c", "echo ready && exec cat"]
            holder = subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            holders.append(stack.enter_context(holder))
            assert holder.stdin is not None
            assert holder.stdout is not None
            stack.callback(holder.stdin.close)
            if not holder.stdout.readline():
                raise subprocess.CalledProcessError(holder.wait(), hold)

        def ip(node: int, *arguments: str) -> None:
            subprocess.run([*inside(node), "ip", *arguments], check=True, capture_output=True)

        peer = ("peer", "name", "cable", "netns", str(holders[1].pid))
        ip(0, "link", "add", "cable", "type", "veth", *peer)
        for node in (0, 1):
            ip(node, "address", "add", f"10.77.0.{node + 1}/24", "dev", "cable")
            for interface in ("cable", "lo"):
                ip(node, "link", "set", interface, "up")
        yield Network("10.77.0.1", "cable", [inside(0), inside(1)])


class Cluster:
    """Two processes on this machine, and what their jobs have left."""

    def __init__(self, out: Path, backbone: str, data: str) -> None:
        self.out, self.backbone, self.arguments = out, backbone, (str(out), backbone, data)

    def run(self, *jobs: str, nodes: int = 1, network: Network = LOOPBACK) -> subprocess.CompletedProcess[str]:
        """Run jobs under torchrun; as two nodes, with one agent for each."""
        port = a_free_port()
        launch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={2 // nodes}"]
        launch += [f"--master-addr={network.address}", f"--master-port={port}"]
        work = [worker.__file__, *self.arguments, *jobs]
        agents = [
            subprocess.Popen(
                [*network.inside[node], *launch, f"--node-rank={node}", *work],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": network.interface},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in range(nodes)
        ]
        try:
            output = "".join(agent.communicate(timeout=400)[0] for agent in agents)
        finally:
            for agent in agents:
                agent.kill()
        return subprocess.CompletedProcess(work, max(abs(agent.returncode) for agent in agents), output)

    def run_once(self, name: str, *jobs: str, nodes: int = 1) -> None:
        """Run jobs unless another process of this test run has done so; their failure fails all who need them."""
        output = self._once(name, lambda: self.run(*jobs, nodes=nodes))
        assert output.returncode == 0, output.stdout

    def alone(self, job: str) -> dict[str, Any]:
        """Return what a job leaves in one process."""
        work = [*self.arguments, f"{job}:single"]

        def run() -> subprocess.CompletedProcess[str]:
            worker.run(*work)
            return subprocess.CompletedProcess(work, 0, "")

        self._once(f"{job}-alone", run)
        result: dict[str, Any] = json.loads((self.out / f"{job}-single-0.json").read_text())
        return result

    def _once(
        self, name: str, work: Callable[[], subprocess.CompletedProcess[str]]
    ) -> subprocess.CompletedProcess[str]:
        record = self.out / f"{name}.run.json"
        with FileLock(self.out / f"{name}.lock"):
            if not record.exists():
                done = work()
                record.write_text(json.dumps([done.args, done.returncode, done.stdout]))
        return subprocess.CompletedProcess(*json.loads(record.read_text()))

    def config(self, strategy: str) -> dict[str, Any]:
        """A configuration of a tiny run."""
        return worker.Runs(*self.arguments, "config", strategy).tiny_config()

    def results(self, job: str, strategy: str) -> list[dict[str, Any]]:
        """What a job has left, by rank."""
        return [json.loads((self.out / f"{job}-{strategy}-{rank}.json").read_text()) for rank in (0, 1)]


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
