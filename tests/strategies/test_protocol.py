"""Every strategy for real, in two processes on CPUs with gloo: what one process does, two do too."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from beft_lightning.checkpoint import FINGERPRINT_KEY, TRAINED_KEY, read_checkpoint
from beft_lightning.export import export
from tests.strategies.cluster import DEEPSPEED, STRATEGIES, TORCH, Cluster, Job, two_machines
from tests.strategies.worker import LONGEST, Runs


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_select_as_one(strategy: str, results: Job, alone: dict[str, Any]) -> None:
    """The same scores but for rounding: relative 1e-5. Those of the inert key bias are nothing but rounding."""
    first, second = results("protocol", strategy)
    assert first["scores"] == second["scores"]
    assert first["selected"] == second["selected"] == alone["selected"] == ["value"]
    assert first["names"] == alone["names"]
    assert first["parameters"] == alone["parameters"]
    for term in ("query", "value"):
        assert first["scores"][term] == pytest.approx(alone["scores"][term], rel=1e-5, abs=1e-9)


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
def test_two_processes_evaluate_as_one(strategy: str, results: Job, cluster: Cluster, alone: dict[str, Any]) -> None:
    """The number of evaluation batches is odd, so one of the processes gets one of them a second time."""
    first, second = results("protocol", strategy)
    assert len(first["predict"]) + len(second["predict"]) == 24
    for command in ("metrics", "validate", "test"):
        assert first[command] == pytest.approx(alone[command], abs=1e-6)
        assert second[command] == pytest.approx(alone[command], abs=1e-6)
    assert first["validate"] == first["metrics"] == first["same"]
    predictions = [*first["predict"], *second["predict"]]
    assert dict(map(tuple, predictions)) == dict(map(tuple, alone["predict"]))
    written = (cluster.out / f"protocol-{strategy}" / "predictions.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[1:] for line in written] == [[str(i), label] for i, label in sorted(alone["predict"])]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_holds_the_trained_values_alone_and_whole(strategy: str, results: Job) -> None:
    first, _ = results("protocol", strategy)
    assert first["checkpoint"] == first["trained"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_that_is_saved_after_the_fit_is_the_same(strategy: str, results: Job) -> None:
    for result in results("protocol", strategy):
        assert result["later"] == result["trained"]
        assert result["same_base"]


@pytest.mark.parametrize("strategy", TORCH)
def test_a_checkpoint_that_is_saved_after_an_evaluation_is_the_same(
    strategy: str, results: Job, cluster: Cluster
) -> None:
    saved = read_checkpoint(cluster.out / f"protocol-{strategy}" / "epoch=1.ckpt")
    for result in results("protocol", strategy):
        assert result["evaluated"]["values"] == result["trained"]
        for key in (FINGERPRINT_KEY, TRAINED_KEY):
            assert result["evaluated"][key] == saved[key]


@pytest.mark.parametrize("strategy", DEEPSPEED)
def test_deepspeed_has_nothing_to_save_after_an_evaluation(strategy: str, results: Job) -> None:
    """Its engine for evaluation has no optimizer, and under a mixed precision the values rounded."""
    for result in results("protocol", strategy):
        assert "evaluates" in result["evaluated"]["error"]
        assert "call save_checkpoint before" in result["evaluated"]["error"]


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


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_only_gradients_of_what_is_trained_are_reduced(strategy: str, results: Job) -> None:
    for result in results("bytes", strategy):
        assert result["bytes"] == result["steps"] * 4 * result["trained"]
        assert result["trained"] == 3 * 32 + 32 + 2 * 32 + 2


@pytest.mark.parametrize("job", ["own_encoder", "own_decoder"])
def test_a_module_of_somebody_else_selects_and_trains_as_in_one_process(
    job: str, results: Job, cluster: Cluster
) -> None:
    one, two = cluster.alone(job), results(job, "ddp")
    best = max(entry["score"] for entry in one["scores"].values())
    for result in two:
        assert result["selected"] == one["selected"]
        for term, entry in one["scores"].items():
            assert result["scores"][term]["layers"] == pytest.approx(entry["layers"], rel=1e-3, abs=1e-5 * best)
        assert result["trained"].keys() == one["trained"].keys()
        for name, values in one["trained"].items():
            assert result["trained"][name] == pytest.approx(values, rel=1e-3, abs=1e-6)
    assert two[0]["trained"] == two[1]["trained"]


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
