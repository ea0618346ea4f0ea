"""Fits of modules with several towers: what is scored, trained and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.adapter import load_adapter
from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.errors import ArchitectureError, CheckpointError
from tests.tiny import LAYERS, make_model, token_batches

MakeTrainer = Callable[..., Trainer]
TOWERS = ["left", "right"]


class DualEncoder(LightningModule):
    """Somebody else's pair of encoders: the left one reads the tokens, the right one reads them backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = make_model("bert").base_model, make_model("gpt2").base_model
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.losses: list[float] = []

    def forward(self, ids: Tensor) -> Tensor:
        left = self.left(input_ids=ids).last_hidden_state.mean(1)
        right = self.right(input_ids=ids.flip(1)).last_hidden_state.mean(1)
        return self.scale * nn.functional.normalize(left) @ nn.functional.normalize(right).T

    def training_step(self, batch: list[Tensor]) -> Tensor:
        scores = self(batch[0])
        return nn.functional.cross_entropy(scores, torch.arange(len(scores)))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def fit(
    make_trainer: MakeTrainer, callback: BiasSelectionCallback, module: Any = None, ckpt_path: Any = None
) -> tuple[Trainer, Any]:
    seed_everything(3, verbose=False)
    module = module or DualEncoder()
    trainer = make_trainer(callbacks=[callback, AdapterCheckpoint()], max_epochs=2)
    trainer.fit(module, token_batches(16), ckpt_path=ckpt_path)
    return trainer, module


def moved(module: nn.Module, fresh: nn.Module) -> list[str]:
    before = dict(fresh.named_parameters())
    return [n for n, p in module.named_parameters() if n not in before or not torch.equal(p, before[n])]


def test_two_towers_are_scored_apart_and_the_best_term_of_one_is_trained(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    callback = BiasSelectionCallback("gradient", scope=TOWERS, batches=3)
    trainer, module = fit(make_trainer, callback)
    assert callback.scores is not None
    assert callback.scores.model_type == "bert + gpt2"
    entries = callback.scores.terms
    assert set(entries) == {f"{tower}.{term}" for tower in TOWERS for term in ("query", "key", "value")}
    assert {term for term, entry in entries.items() if entry.inert} == {"left.key", "right.key"}
    assert {(len(entry.layers), entry.parameters) for entry in entries.values()} == {(LAYERS, LAYERS * 32)}
    (winner,) = callback.selected or []
    tower, term = winner.split(".")
    assert term == "value"
    # Exactly the chosen tower's term and the module's own parameter; the other tower keeps every bit.
    assert sum(module.get_parameter(name).numel() for name in callback.trained) == LAYERS * 32 + 1
    (other,) = {*TOWERS} - {tower}
    fresh = DualEncoder()
    assert tower == "right"
    assert moved(module.get_submodule(other), fresh.get_submodule(other)) == []
    # As if it had been named, in that tower alone or among both.
    for scope, terms in ((TOWERS, [winner]), (tower, [term])):
        _, fixed = fit(make_trainer, BiasSelectionCallback("fixed", terms, scope=scope))
        assert fixed.losses == module.losses
    trainer.save_checkpoint(tmp_path / "scored.ckpt")
    held = read_checkpoint(tmp_path / "scored.ckpt")["state_dict"]
    assert set(held) == set(callback.trained)
    load_adapter(fresh, tmp_path / "scored.ckpt")
    ids = token_batches().dataset[:4][0]
    assert torch.equal(fresh.eval()(ids), module.eval()(ids))
    with pytest.raises(CheckpointError, match=r"in scope \['left', 'right'\], this run asks for .* in scope left"):
        fit(make_trainer, BiasSelectionCallback(scope="left"), ckpt_path=tmp_path / "scored.ckpt")


def test_both_towers_train_if_both_are_kept(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback("fixed", ["value.0"], scope=TOWERS, head="none")
    _, module = fit(make_trainer, callback)
    left, right = callback.trained
    assert left == "left.encoder.layer.0.attention.self.value.bias"
    assert right == "right.h.0.attn.c_attn.parametrizations.bias.original2"
    assert {left} <= set(moved(module, DualEncoder()))


def test_two_live_towers_need_a_scope(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ArchitectureError, match=r"2 transformers models \(left, right\): name .* as `scope`"):
        fit(make_trainer, BiasSelectionCallback())


class PlainPair(DualEncoder):
    """The same of plain torch, whose attention only its training step shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right = (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), layers) for layers in (2, 1)
        )
        self.embedding = nn.Embedding(32, 8)

    def forward(self, ids: Tensor) -> Tensor:
        left, right = (tower(self.embedding(ids)).mean(1) for tower in (self.left, self.right))
        return self.scale * left @ right.T


@pytest.mark.parametrize(("scope", "layers"), [(TOWERS, {"left.value": 2, "right.value": 1}), ("left", {"value": 2})])
def test_plain_towers_are_watched(scope: str | list[str], layers: dict[str, int], make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback("gradient", scope=scope, head=["scale"], batches=2)
    fit(make_trainer, callback, PlainPair())
    assert callback.scores is not None
    assert {t: len(e.layers) for t, e in callback.scores.terms.items() if t.endswith("value")} == layers
    assert all(name == "scale" or name.split(".")[0] in scope for name in callback.trained)
