"""Checkpoints read by a Trainer with other candidates, with a mapping of the user's, or without a selection."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, load_adapter
from beft_lightning.bias import Architecture, Fused
from beft_lightning.errors import BeftError, CheckpointError
from tests.callbacks.test_adapter_checkpoint import Validated, foreign
from tests.tiny import logits, token_batches

MakeTrainer = Callable[..., Trainer]


@pytest.mark.parametrize("form", ["llama", "gpt2"])
def test_a_checkpoint_of_one_term_is_read_where_more_are_candidates(
    form: str, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model without biases, the others are zero here and nowhere there, which is the same model."""

    def few(self: Validated) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)

    def fit(epochs: int, selection: BiasSelectionCallback, resume: Path | None = None) -> Validated:
        seed_everything(2, verbose=False)
        trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()], max_epochs=epochs)
        module = foreign(form)
        trainer.fit(module, token_batches(), ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module

    fit(1, BiasSelectionCallback("fixed", ["value"]))
    if form == "llama":  # The module gives its optimizer all parameters, of which there are more now.
        with pytest.raises(CheckpointError, match="resume with the same terms.*that require a gradient"):
            fit(2, BiasSelectionCallback(), tmp_path / "1.ckpt")
    monkeypatch.setattr(Validated, "configure_optimizers", few)
    fitted = fit(1, BiasSelectionCallback("fixed", ["value"]))
    for command in ("validate", "test"):
        fresh = foreign(form)
        reader = make_trainer(callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
        getattr(reader, command)(fresh, token_batches(), ckpt_path=tmp_path / "1.ckpt", verbose=False)
        assert torch.equal(logits(fresh.net), logits(fitted.net))
    whole = fit(2, BiasSelectionCallback("fixed", ["value"]))
    selection = BiasSelectionCallback()
    resumed = fit(2, selection, tmp_path / "1.ckpt")
    assert selection.selected == ["value"]
    assert torch.equal(logits(resumed.net), logits(whole.net))
    fresh = foreign(form)
    reader = make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()])
    reader.validate(fresh, token_batches(), ckpt_path=tmp_path / "2.ckpt", verbose=False)
    assert torch.equal(logits(fresh.net), logits(whole.net))
    with pytest.raises(CheckpointError, match=r"trained with \['value'\] in scope None, this run asks for \['key'\]"):
        fit(2, BiasSelectionCallback("fixed", ["key"]), tmp_path / "1.ckpt")


class Mapped(LightningModule):
    """A model of nobody's, whose fused layer computes value before key before query."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.ModuleDict({"vkq": nn.Linear(4, 12)}) for _ in range(2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return torch.stack([block["vkq"](batch[0][:, :4].float()).square().mean() for block in self.blocks]).sum()  # type: ignore[index]

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def test_parts_of_a_fused_bias_that_the_user_maps_are_read(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """By a Trainer and without one; the checkpoint says how the bias was split, the mapping may be left out."""
    mine = Architecture("blocks.{}", fused={"vkq": Fused({"value": 1, "key": 1, "query": 1})})
    path = tmp_path / "mapped.ckpt"
    fitted = Mapped()
    selection = BiasSelectionCallback("fixed", ["value"], head="none", architecture=mine)
    trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()])
    trainer.fit(fitted, token_batches())
    trainer.save_checkpoint(path)
    read, loaded, resumed, unmapped = Mapped(), Mapped(), Mapped(), Mapped()
    make_trainer(callbacks=[AdapterCheckpoint(mine)]).validate(read, token_batches(), ckpt_path=path, verbose=False)
    load_adapter(loaded, path, mine)
    load_adapter(unmapped, path)
    for module in (read, loaded, unmapped):
        torch.testing.assert_close(dict(module.state_dict()), dict(fitted.state_dict()), rtol=0, atol=0)
    make_trainer(callbacks=[AdapterCheckpoint(mine)], max_epochs=2).fit(resumed, token_batches(), ckpt_path=path)
    assert [name for name, p in resumed.named_parameters() if p.requires_grad] == selection.trained


def test_without_a_selection_nothing_is_trained_in_half_precision(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()]
    trainer = make_trainer(callbacks=callbacks, precision="bf16-mixed")
    trainer.fit(foreign("bert").bfloat16(), token_batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resuming = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=2)
    with pytest.raises(BeftError, match="Set precision to 'bf16-mixed'"):
        resuming.fit(foreign("bert").bfloat16(), token_batches(), ckpt_path=tmp_path / "a.ckpt")
