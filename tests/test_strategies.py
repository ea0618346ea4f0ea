"""Every strategy for real, in two processes on CPUs with gloo: what one process does, two do too."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.__main__ import main
from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.export import export
from beft_lightning.models import QUANTIZED
from beft_lightning.strategies import adapt, call_after
from beft_lightning.strategies.collectives import destroy_process_group
from tests.strategy_worker import CONFIGS, DRIFT_STEPS, LONGEST, Runs
from tests.strategy_worker import STRATEGIES as WORKER_STRATEGIES
from tests.tiny import ForeignModule, save_backbone, token_batches

ROOT = Path(__file__).parents[1]
WORKER = ROOT / "tests" / "strategy_worker.py"
TORCH = ["ddp", "fsdp", "fsdp2"]
DEEPSPEED = ["zero1", "zero2", "zero3", "zero3_offload"]
STRATEGIES = [*TORCH, *DEEPSPEED]
DEEPSPEED_CONFIGS = ["deepspeed_zero2", "deepspeed_zero3", "deepspeed_zero3_offload"]
MIDDLE = [*TORCH, *DEEPSPEED]
#: Jobs that one process does alike, each with the strategies it is run under.
ALIKE = [
    *(("mixed", strategy) for strategy in TORCH),
    *(("fused", strategy) for strategy in [*TORCH, "zero2"]),
    *(("lora", strategy) for strategy in ("ddp", "fsdp2", "zero2")),
    *(("recomputed", strategy) for strategy in [*TORCH, "zero2"]),
    *(run for run in (("int8", "ddp"), ("nf4", "ddp"), ("nf4", "fsdp2")) if find_spec("bitsandbytes")),
]

# The two processes are started once; with several pytest processes, each would start them.
pytestmark = pytest.mark.xdist_group("strategies")

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
        work = [str(WORKER), *self.arguments, *jobs]
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

    def config(self, strategy: str) -> dict[str, Any]:
        """A configuration of a tiny run."""
        return Runs(*self.arguments, "config", strategy).tiny_config()

    def results(self, job: str, strategy: str) -> list[dict[str, Any]]:
        """What a job has left, by rank."""
        return [json.loads((self.out / f"{job}-{strategy}-{rank}.json").read_text()) for rank in (0, 1)]


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _in_no_group() -> Iterator[None]:
    """Tests in this process leave the group of one process that they were in."""
    yield
    destroy_process_group()


@pytest.fixture
def free_port() -> int:
    return a_free_port()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, sst2_dir: str) -> Cluster:
    # One process draws other dropout masks than two; where dropout belongs to a test, the worker sets it.
    folder = tmp_path_factory.mktemp("backbones")
    backbone = save_backbone(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    save_backbone(folder / "bert-llama", "llama", causal=True, biases=False, tie_word_embeddings=True)
    save_backbone(folder / "bert-gpt2", "gpt2", causal=True, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    return Cluster(tmp_path_factory.mktemp("runs"), backbone, sst2_dir)


@pytest.fixture(scope="session")
def alone(cluster: Cluster) -> dict[str, Any]:
    """What one process does."""
    return Runs(*cluster.arguments, "protocol", "single").protocol()


@pytest.fixture(scope="session")
def decoder_alone(cluster: Cluster) -> dict[str, Any]:
    return Runs(*cluster.arguments, "decoder", "single").decoder()


@pytest.fixture(scope="session")
def with_torch(cluster: Cluster) -> None:
    """All jobs of torch's own strategies, on two nodes of one process each."""
    jobs = [f"{job}:{s}" for job in ("protocol", "decoder", "middle", "drift", "config") for s in TORCH]
    jobs += ["generate:fsdp", "generate:fsdp2", "bytes:ddp", "bytes:fsdp2", "foreign:fsdp2", "different:ddp"]
    jobs += ["lora:fsdp", *(f"{job}:{strategy}" for job, strategy in ALIKE if strategy in TORCH)]
    done = cluster.run(*jobs, nodes=2)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def with_deepspeed(cluster: Cluster) -> None:
    """All jobs of DeepSpeed, on one node of two processes."""
    if find_spec("deepspeed") is None:
        pytest.skip("needs DeepSpeed: pip install deepspeed")
    jobs = [*(f"protocol:{s}" for s in DEEPSPEED), *(f"config:{s}" for s in DEEPSPEED_CONFIGS)]
    jobs += ["decoder:zero2", "decoder:zero3", "drift:zero2", "drift:zero3", "generate:zero3"]
    jobs += [*(f"middle:{s}" for s in DEEPSPEED), *(f"{job}:{s}" for job, s in ALIKE if s in DEEPSPEED)]
    done = cluster.run(*jobs)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def results(cluster: Cluster, request: pytest.FixtureRequest) -> Job:
    def get(job: str, strategy: str) -> list[dict[str, Any]]:
        request.getfixturevalue("with_torch" if strategy in TORCH else "with_deepspeed")
        return cluster.results(job, strategy)

    return get


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_select_as_one(strategy: str, results: Job, alone: dict[str, Any]) -> None:
    """The same scores but for rounding: relative 1e-5, where the best terms are two orders of magnitude apart."""
    first, second = results("protocol", strategy)
    assert first["scores"] == second["scores"]
    assert first["selected"] == second["selected"] == alone["selected"] == ["value"]
    assert first["names"] == alone["names"]
    assert first["parameters"] == alone["parameters"]
    for term, layers in alone["scores"].items():
        assert first["scores"][term] == pytest.approx(layers, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_as_one(strategy: str, results: Job, alone: dict[str, Any]) -> None:
    first, second = results("protocol", strategy)
    assert len(alone["losses"]) == 12
    assert first["losses"] == pytest.approx(alone["losses"], abs=1e-6)
    assert first["trained"] == second["trained"]
    assert list(first["trained"]) == list(alone["trained"])
    for name, values in alone["trained"].items():
        assert first["trained"][name] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_evaluate_as_one(strategy: str, results: Job, alone: dict[str, Any]) -> None:
    """The number of evaluation batches is odd, so one of the processes gets one of them a second time."""
    first, second = results("protocol", strategy)
    assert len(first["predict"]) + len(second["predict"]) == 24
    for command in ("metrics", "validate", "test"):
        assert first[command] == pytest.approx(alone[command], abs=1e-6)
        assert second[command] == pytest.approx(alone[command], abs=1e-6)
    assert first["validate"] == first["metrics"] == first["same"]
    predictions = [*first["predict"], *second["predict"]]
    assert dict(map(tuple, predictions)) == dict(map(tuple, alone["predict"]))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resuming_after_an_epoch_is_exact_and_selects_nothing(strategy: str, results: Job) -> None:
    for result in results("protocol", strategy):
        assert result["resumed"]["losses"] == result["losses"][6:]
        assert result["resumed"]["trained"] == result["trained"]
        assert result["resumed"]["seconds_scoring"] == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_holds_the_trained_values_alone_and_whole(strategy: str, results: Job) -> None:
    first, _ = results("protocol", strategy)
    assert first["checkpoint"] == first["trained"]


@pytest.mark.parametrize("strategy", [*TORCH, "zero2", "zero3"])
def test_a_decoder_without_biases_and_with_tied_weights(
    strategy: str, results: Job, decoder_alone: dict[str, Any]
) -> None:
    for result in results("decoder", strategy):
        assert result["losses"] == pytest.approx(decoder_alone["losses"], abs=1e-6)
        for term, layers in decoder_alone["scores"].items():
            assert result["scores"][term] == pytest.approx(layers, rel=1e-5)
        assert result["validated"] == result["fitted"] == pytest.approx(decoder_alone["fitted"])


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2", "zero3"])
def test_processes_write_texts_of_different_lengths(strategy: str, results: Job) -> None:
    """A process that has finished its text helps the other with its own."""
    first, second = results("generate", strategy)
    assert (first["lengths"], second["lengths"]) == ([1] * 3, [LONGEST] * 3)


@pytest.mark.parametrize("config", [*TORCH, *DEEPSPEED_CONFIGS])
def test_a_shipped_configuration_runs(config: str, results: Job) -> None:
    first, second = results("config", config)
    assert first == second
    assert first["options"]["_timeout"] == "0:10:00"
    assert 0 < first["metrics"]["val_loss"] < 1


@pytest.mark.parametrize("strategy", MIDDLE)
def test_resuming_within_an_epoch_is_exact_with_dropout(strategy: str, results: Job) -> None:
    for result in results("middle", strategy):
        assert len(result["whole"]) == 12
        assert result["rest"] == result["whole"][4:]


@pytest.mark.parametrize(("job", "strategy"), ALIKE)
def test_further_runs_of_two_processes_are_as_those_of_one(
    job: str, strategy: str, results: Job, cluster: Cluster
) -> None:
    """In bf16, batches of another size round otherwise."""
    alone = getattr(Runs(*cluster.arguments, job, "single"), job)()
    tolerance = 2e-3 if job == "mixed" else 1e-6
    first, second = results(job, strategy)
    assert first["trained"] == second["trained"]
    assert first["losses"] == pytest.approx(alone["losses"], abs=tolerance)
    assert list(first["trained"]) == list(alone["trained"])
    for name, values in alone["trained"].items():
        assert first["trained"][name] == pytest.approx(values, abs=tolerance)
    if job == "fused":
        assert [name.rpartition(".")[2] for name in first["trained"]] == ["original2"] * 3  # value alone


def test_fsdp_refuses_the_matrices_of_lora(results: Job) -> None:
    for result in results("lora", "fsdp"):
        assert "vectors (biases and norms) and the head can be trained, and 'model.bert." in result["error"]
        assert "lora_A.default.weight' is neither" in result["error"]


@pytest.mark.parametrize("strategy", DRIFT_STEPS)
def test_biases_do_not_stall_over_a_bf16_base(strategy: str, results: Job) -> None:
    """A bf16 bias of 1 would not move at all: the next number is 1.0078."""
    for result in results("drift", strategy):
        assert len(result["values"]) == 3
        for values in result["values"].values():
            assert values == pytest.approx([1 + 1e-4 * DRIFT_STEPS[strategy]] * 32, abs=1e-5)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_only_gradients_of_what_is_trained_are_reduced(strategy: str, results: Job) -> None:
    for result in results("bytes", strategy):
        assert result["bytes"] == result["steps"] * 4 * result["trained"]
        assert result["trained"] == 3 * 32 + 32 + 2 * 32 + 2


def test_a_module_that_shards_itself(results: Job) -> None:
    for result in results("foreign", "fsdp2"):
        assert result["selected"] == ["value"]
        assert result["rest"] == result["whole"][4:]


def test_processes_that_differ_are_told_apart(results: Job) -> None:
    for result in results("different", "ddp"):
        rate, data = result["messages"]
        assert rate.startswith("learning_rate is 0.0 in process 0 and 0.1 in process 1: start all processes with the")
        assert data.startswith("the data of split 'train' is '40 examples, ")


def test_a_lost_process_ends_the_run_which_can_be_resumed(cluster: Cluster, alone: dict[str, Any]) -> None:
    done = cluster.run("killed:fsdp2")
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stdout
    runs = Runs(*cluster.arguments, "killed", "single")
    runs.folder = cluster.out / "killed-fsdp2"
    assert runs.resume()["losses"] == pytest.approx(alone["losses"][6:], abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_checkpoint_is_evaluated_by_one_process(
    strategy: str, results: Job, cluster: Cluster, alone: dict[str, Any]
) -> None:
    results("protocol", strategy)
    runs = Runs(*cluster.arguments, "evaluation", "single")
    path = cluster.out / f"protocol-{strategy}" / "epoch=1.ckpt"
    (metrics,) = runs.trainer().validate(**runs.parts(), ckpt_path=path, weights_only=True, verbose=False)
    assert metrics == pytest.approx(alone["validate"], abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_checkpoint_is_exported_without_its_strategy(
    strategy: str, results: Job, cluster: Cluster, alone: dict[str, Any], tmp_path: Path
) -> None:
    """The whole model of transformers holds the trained values, the PEFT adapter what has been added to the base's."""
    trained = results("protocol", strategy)[0]["trained"]
    path = cluster.out / f"protocol-{strategy}" / "epoch=1.ckpt"
    base = load_file(Path(cluster.backbone) / "model.safetensors")
    whole = load_file(export(path, tmp_path / "hf", "hf") / "model.safetensors")
    adapter = load_file(export(path, tmp_path / "peft", "peft") / "adapter_model.safetensors")
    for name, values in trained.items():
        key = name.removeprefix("model.")
        assert whole[key].flatten().tolist() == values
        if ".value." in key:
            moved = whole[key] - base[key.removeprefix("bert.")]
            assert moved.abs().max() > 0
            added = adapter[f"base_model.model.{key.removesuffix('bias')}beft_bias"]
            torch.testing.assert_close(added.flatten(), moved, rtol=0, atol=0)


@pytest.mark.parametrize("strategy", TORCH)
def test_one_process_resumes_what_two_began(
    strategy: str, results: Job, cluster: Cluster, alone: dict[str, Any]
) -> None:
    results("protocol", strategy)
    runs = Runs(*cluster.arguments, "protocol", "single")
    runs.folder = cluster.out / f"protocol-{strategy}"
    assert runs.resume()["losses"] == pytest.approx(alone["losses"][6:], abs=1e-6)


def test_deepspeed_resumes_only_its_own_checkpoints(results: Job, cluster: Cluster) -> None:
    results("protocol", "zero2")
    runs = Runs(*cluster.arguments, "protocol", "single")
    runs.folder = cluster.out / "protocol-zero2"
    with pytest.raises(CheckpointError, match="written under DeepSpeed, which alone .* resume with the same strategy"):
        runs.resume()
    assert set(read_checkpoint(runs.folder / "epoch=0.ckpt")["state_dict"]) == set(
        results("protocol", "zero2")[0]["names"]
    )


def test_fsdp_refuses_to_train_a_weight_matrix(cluster: Cluster) -> None:
    """In a group of one process, which is enough to wrap a model."""
    runs = Runs(*cluster.arguments, "matrix", "fsdp")
    trainer = runs.trainer()
    runs.selection.head = ["*pooler.dense.weight"]
    with pytest.raises(BeftError, match="vectors .* and 'model.bert.pooler.dense.weight' is neither.*ModelParallel"):
        trainer.fit(**runs.parts())


def test_quantized_weights_are_refused_where_they_would_be_sharded(cluster: Cluster) -> None:
    runs = Runs(*cluster.arguments, "sharded", "fsdp2")
    with pytest.raises(BeftError, match="'int8' under ModelParallelStrategy, which would shard .*: use DDPS"):
        runs.trainer().fit(**runs.parts(dtype="int8"))
    names = [name for name in WORKER_STRATEGIES if "zero" not in name]
    allowed = {name: adapt(WORKER_STRATEGIES[name]()).quantized for name in names}
    assert allowed == {"single": QUANTIZED, "ddp": QUANTIZED, "fsdp": (), "fsdp2": ("nf4",)}


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_only_the_third_stage_of_zero_refuses_what_needs_whole_weights() -> None:
    strategies = [adapt(WORKER_STRATEGIES[name]()) for name in DEEPSPEED]
    assert [strategy.quantized for strategy in strategies] == [QUANTIZED, QUANTIZED, (), ()]
    assert [strategy.recomputes for strategy in strategies] == [True, True, False, False]


def test_a_plan_to_split_layers_is_refused_for_modules_that_have_none(cluster: Cluster) -> None:
    class Waits(ForeignModule):
        def configure_model(self) -> None:
            pass

    runs = Runs(*cluster.arguments, "layers", "fsdp2")
    trainer = runs.trainer()
    module = Waits()
    call_after(module, "configure_model", lambda: vars(trainer.strategy).update(_device_mesh=TwoByOne()))
    with pytest.raises(BeftError, match="split each layer over 2 devices.*set data_parallel_size to 1"):
        trainer.fit(module, token_batches())


class TwoByOne(dict[str, Any]):
    """Stands in for the mesh of two devices that split each layer."""

    def __missing__(self, name: str) -> Any:
        return SimpleNamespace(size=lambda: 2 if name == "tensor_parallel" else 1)


def test_parameters_that_a_sharded_module_leaves_out_are_named(cluster: Cluster) -> None:
    class LeavesOut(ForeignModule):
        def configure_model(self) -> None:
            assert self.device_mesh is not None
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    runs = Runs(*cluster.arguments, "out", "fsdp2")
    with pytest.raises(BeftError, match="the model is sharded, but not its 'extra.weight'"):
        runs.trainer().fit(LeavesOut(), token_batches())


def test_without_deepspeed_its_configurations_say_what_to_install(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("beft_lightning.cli.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    (tmp_path / "tiny.yaml").write_text(json.dumps(cluster.config("none")))
    config = ["--config", str(tmp_path / "tiny.yaml"), "--config", str(CONFIGS / "deepspeed_zero2.yaml")]
    assert main(["fit", *config]) == 2
    error = "error: trainer.strategy lightning.pytorch.strategies.DeepSpeedStrategy needs DeepSpeed"
    assert error in capsys.readouterr().err


def test_half_precision_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(precision="bf16-true", callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
    with pytest.raises(BeftError, match="would cast the trained biases to half precision.*use 'bf16-mixed'"):
        trainer.fit(ForeignModule(), token_batches())


def test_a_strategy_is_adapted_once_and_stays_what_it_was() -> None:
    strategy: Any = ModelParallelStrategy()
    assert adapt(strategy) is strategy
    assert adapt(strategy) is strategy
    assert isinstance(strategy, ModelParallelStrategy)
    assert type(strategy).__name__ == "ModelParallelStrategy"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="lists this process's threads as Linux does")
@pytest.mark.parametrize("goes_wrong", [False, True])
def test_a_command_leaves_no_thread_of_gloo_behind(
    goes_wrong: bool,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Such a thread may abort the process while the interpreter ends."""

    def threads() -> list[str]:
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        return [name for name in names if "gloo" in name]

    before, during = threads(), []

    def look(*args: Any) -> None:
        during.extend(threads())
        if goes_wrong:
            raise BeftError("the last batch is bad")

    monkeypatch.setattr(BiasSelectionCallback, "on_train_end", look, raising=False)
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    (tmp_path / "tiny.yaml").write_text(json.dumps(cluster.config("threads")))
    config = ["--config", str(tmp_path / "tiny.yaml"), "--config", str(CONFIGS / "ddp.yaml")]
    assert main(["fit", *config]) == (2 if goes_wrong else 0)
    assert len(during) > len(before)
    assert threads() == before
    assert not dist.is_initialized()
    assert ("error: the last batch is bad" in capsys.readouterr().err) is goes_wrong


#: Stands in for SLURM's srun: starts both tasks of two nodes here, and stops both if one fails.
SRUN = """#!/usr/bin/env bash
[[ $1 == --kill-on-bad-exit=1 ]] && shift
for node in 0 1; do
    SLURM_PROCID=$node SLURM_NODEID=$node SLURM_LOCALID=0 "$@" > "$LOGS/$node.txt" 2>&1 &
done
wait -n && wait -n || { kill $(jobs -p); exit 1; }
"""


def test_the_slurm_script_resumes_from_what_the_last_start_has_left(
    cluster: Cluster, tmp_path: Path, free_port: int
) -> None:
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(cluster.config("auto")))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LOGS": str(tmp_path),
        "OUT": str(tmp_path / "out"),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port),
        "GLOO_SOCKET_IFNAME": "lo",
        "SLURM_JOB_NAME": "beft",
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODELIST": "127.0.0.1",
    }
    for epochs, resumed in ((1, ""), (2, "version_0/checkpoints/last.ckpt")):
        command = [str(ROOT / "examples" / "slurm_two_nodes.sh"), "--config", str(config)]
        command += ["--config", str(CONFIGS / "ddp.yaml"), "--trainer.max_epochs", str(epochs)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)
        logs = "".join((tmp_path / f"{node}.txt").read_text() for node in (0, 1))
        assert done.returncode == 0, done.stderr + logs
        assert ("Restored all states from the checkpoint" in logs) == bool(resumed)
        assert resumed in logs


def test_the_torchrun_script_runs(cluster: Cluster, tmp_path: Path, free_port: int) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(cluster.config("torchrun")))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NPROC": "2",
        "MASTER_PORT": str(free_port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [str(ROOT / "examples" / "torchrun.sh"), "--config", str(config), "--config", str(CONFIGS / "fsdp2.yaml")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "distributed_backend=gloo" in done.stderr
    assert "All distributed processes registered. Starting with 2 processes" in done.stderr


def test_a_node_that_never_joins_ends_the_run(cluster: Cluster, tmp_path: Path, free_port: int) -> None:
    """As torchrun starts a worker; torchrun itself gives up after its own time."""
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(cluster.config("auto")))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "RANK": "0", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "beft_lightning", "fit", "--config", str(config)]
    command += ["--config", str(CONFIGS / "ddp.yaml"), "--trainer.strategy.init_args.timeout", "0:00:02"]
    command += ["--trainer.num_nodes", "2"]
    joined = {"LOCAL_RANK": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    environment = {**os.environ, **place, **joined, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert f"error: not all of the 2 processes have met at 127.0.0.1:{free_port} (" in done.stderr


def test_two_machines_train_as_one(cluster: Cluster, results: Job) -> None:
    """Two addresses on two networks, where no process can reach another through this machine's own."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(two_machines())
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            pytest.skip(f"needs network namespaces (unshare, nsenter and ip, and the right to use them): {error}")
        done = cluster.run("plain:ddp", nodes=2, network=network)
    assert done.returncode == 0, done.stdout
    first, second = results("plain", "ddp")
    assert first["losses"] == second["losses"] == results("protocol", "ddp")[0]["losses"][:6]


def test_the_survivor_of_a_lost_process_says_so(cluster: Cluster, tmp_path: Path, free_port: int) -> None:
    """Without torchrun, which would stop it."""
    config = cluster.config("auto")
    config["trainer"] |= {"max_epochs": 2, "num_nodes": 2, "callbacks": [{"class_path": "tests.strategy_worker.Kill"}]}
    (tmp_path / "tiny.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "beft_lightning", "fit", "--config", str(tmp_path / "tiny.yaml")]
    command += ["--config", str(CONFIGS / "ddp.yaml")]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    joined = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, **joined, "RANK": str(rank), "GROUP_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        error, _ = (process.communicate(timeout=150)[1] for process in processes)
    finally:
        for process in processes:
            process.kill()
    survivor, lost = processes
    assert lost.returncode == -signal.SIGKILL
    assert survivor.returncode == 2, error
    assert "error: process 0 of 2 has lost contact with the others (" in error
    assert "its own output says why. To go on, start all of them again with --ckpt_path" in error
    assert "Traceback" not in error
