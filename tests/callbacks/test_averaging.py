"""Averages of what is trained, over frozen weights that stay as they are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from tests.callbacks.test_adapter_checkpoint import FORMS, foreign
from tests.tiny import ForeignModule, logits, token_batches

MakeTrainer = Callable[..., Trainer]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("averaging_first", [False, True])
@pytest.mark.parametrize("make", [lambda: EMAWeightAveraging(decay=0.9), lambda: StochasticWeightAveraging(0.1, 1)])
def test_averaged_weights_are_saved_resumed_and_validated(
    form: str, averaging_first: bool, make: Callable[[], Callback], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Whatever the order of the callbacks: averaging copies the module before the biases are there."""

    def fit(epochs: int, resume: Path | None = None, selects: bool = True) -> tuple[ForeignModule, Path, list[str]]:
        seed_everything(2, verbose=False)
        averaging, selection = make(), BiasSelectionCallback("fixed", ["value"])
        callbacks = [averaging, *([selection] if selects else [])][:: 1 if averaging_first else -1]
        saving = ModelCheckpoint(tmp_path, filename=f"{epochs}-{resume is None}")
        trainer = make_trainer(
            callbacks=[*callbacks, AdapterCheckpoint(), saving], max_epochs=epochs, enable_checkpointing=True
        )
        module = foreign(form)
        trainer.fit(module, token_batches(), ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        return module, Path(saving.best_model_path), selection.trained

    module, path, trained = fit(2)
    content = torch.load(path, weights_only=True)
    states = [content["state_dict"], content.get("current_model_state", {})]
    states += [state.get("average_model_state", {}) for state in content["callbacks"].values()]
    assert sum(map(bool, states)) == 2
    assert all(state.keys() <= {*trained, "running"} for state in states)

    fresh = foreign(form)
    for name, parameter in fresh.named_parameters():
        if name not in trained and name in dict(module.named_parameters()):
            assert torch.equal(module.get_parameter(name), parameter), name
    reader = make_trainer(callbacks=[AdapterCheckpoint()])
    reader.validate(fresh, token_batches(), ckpt_path=tmp_path / "end.ckpt", verbose=False)
    torch.testing.assert_close(logits(fresh.net), logits(module.net), rtol=0, atol=0)

    whole, *_ = fit(3)
    for selects in (True, False):
        resumed, *_ = fit(3, path, selects)
        torch.testing.assert_close(logits(resumed.net), logits(whole.net), rtol=0, atol=0)
