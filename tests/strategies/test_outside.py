"""Two processes score and train a model of a type outside of the table, found by watching, as one does."""

from typing import Any

import pytest
import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.strategies.cluster import Cluster
from tests.tiny import VOCABULARY

STRATEGIES = ["ddp", "fsdp2", "zero3"]


@pytest.fixture(scope="session")
def starcoder(cluster: Cluster) -> dict[str, Any]:
    """What one process does; those of two follow."""
    pytest.importorskip("deepspeed")
    folder = f"{cluster.backbone}-starcoder2"
    with FileLock(f"{folder}.lock"):
        config = AutoConfig.for_model(
            "starcoder2", vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64, pad_token_id=0, bos_token_id=2,
            eos_token_id=3, embedding_dropout=0.0, residual_dropout=0.0,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(f"{cluster.backbone}-llama").save_pretrained(folder)
    cluster.run_once("outside", *(f"outside:{strategy}" for strategy in STRATEGIES))
    return cluster.alone("outside")


@pytest.mark.parametrize(("dtype", "scores", "losses"), [("float32", 1e-5, 1e-6), ("bfloat16", 1e-2, 1e-3)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_are_as_one(
    strategy: str, dtype: str, scores: float, losses: float, starcoder: dict[str, Any], cluster: Cluster
) -> None:
    """The scores up to a share of the largest; in bf16, each process rounds the gradients that it sums up."""
    expected = starcoder[dtype]
    for found in (result[dtype] for result in cluster.results("outside", strategy)):
        assert found["selected"] == expected["selected"]
        assert found["trained"].keys() == expected["trained"].keys()
        one, two = (torch.tensor([run["scores"][term] for term in expected["scores"]]) for run in (expected, found))
        torch.testing.assert_close(two, one, rtol=0, atol=scores * one.max().item())
        torch.testing.assert_close(found["losses"], expected["losses"], rtol=losses, atol=0)


def test_what_differs_in_bf16_is_not_the_sharding(starcoder: dict[str, Any], cluster: Cluster) -> None:
    ddp, fsdp2 = (cluster.results("outside", strategy)[0]["bfloat16"]["scores"] for strategy in ("ddp", "fsdp2"))
    assert {term: pytest.approx(layers, rel=1e-5) for term, layers in ddp.items()} == fsdp2
