"""A model that was wrapped by peft inside of somebody's module: refused, or trained together with the biases."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.adapter import load_adapter
from beft_lightning.bias import fuse_biases
from beft_lightning.errors import BeftError
from tests.tiny import LAYERS, ForeignModule, logits, token_batches

peft: Any = pytest.importorskip("peft")
BOTH = ["auto", "*lora_*"]


class Wrapped(ForeignModule):
    """Somebody's module with LoRA on the layers whose biases are to be tuned, too."""

    def __init__(self, model_type: str = "bert", **options: Any) -> None:
        super().__init__(model_type, **options)
        target = {"bert": ["query", "value"], "gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}[model_type]
        torch.manual_seed(2)
        config = peft.LoraConfig(r=2, target_modules=target, fan_in_fan_out=model_type == "gpt2")
        self.net: Any = peft.get_peft_model(self.net, config)


def fit(make_trainer: Any, callback: BiasSelectionCallback, module: Wrapped) -> Any:
    seed_everything(4, verbose=False)
    trainer = make_trainer(callbacks=[callback, AdapterCheckpoint()])
    trainer.fit(module, token_batches(8))
    return trainer


@pytest.mark.parametrize("head", [["extra.*"], ["auto", "*lora_A*"]])
def test_lora_is_never_frozen_unasked(head: Any, make_trainer: Any) -> None:
    module = Wrapped()
    with pytest.raises(BeftError, match=r"To train both, .*`head=\['auto', '\*lora_\*'\]`"):
        fit(make_trainer, BiasSelectionCallback(head=head), module)
    assert module.losses == []


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama"])
def test_both_train_on_request_and_load_and_merge(model_type: str, make_trainer: Any, tmp_path: Path) -> None:
    options = {"biases": False} if model_type == "llama" else {}
    module, callback = Wrapped(model_type, **options), BiasSelectionCallback("fisher", head=BOTH, batches=2)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer = fit(make_trainer, callback, module)
    moved = [n for n, p in module.named_parameters() if n not in before or not torch.equal(p, before[n])]
    assert {*moved} >= {*callback.trained}
    assert sum("lora_" in name for name in callback.trained) == 2 * LAYERS * (1 if model_type == "gpt2" else 2)
    biases = [name for name in callback.trained if "base_layer" in name]
    assert len(biases) == LAYERS
    named = Wrapped(model_type, **options)
    fit(make_trainer, BiasSelectionCallback("fixed", callback.selected or [], head=BOTH), named)
    assert named.losses == module.losses
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    fresh = Wrapped(model_type, **options)
    load_adapter(fresh, tmp_path / "both.ckpt")
    trained = logits(module.net)
    assert torch.equal(logits(fresh.net), trained)
    fuse_biases(fresh)
    torch.testing.assert_close(logits(fresh.net.merge_and_unload()), trained, atol=1e-5, rtol=1e-5)
