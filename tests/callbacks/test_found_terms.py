"""A fit stores where it found its terms; what is restored from its checkpoint is not watched again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule, load_adapter
from beft_lightning.checkpoint import CHECKSUM_KEY, FOUND_KEY
from beft_lightning.data import GLUE_TASKS, Glue
from beft_lightning.errors import CheckpointError
from beft_lightning.export import export
from beft_lightning.loading import load
from tests.tiny import VOCABULARY, save_backbone, token_batches

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and nothing can be watched from then on."""

    def watch(*arguments: Any) -> Any:
        raise AssertionError("watched again")

    def start() -> None:
        monkeypatch.setattr("beft_lightning.bias.lookup.architectures_of_model", watch)
        monkeypatch.setattr("beft_lightning.scoring.watched_step.discover_in", watch)

    return start


@pytest.fixture(scope="module")
def starcoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A backbone without biases, of a type that is not in the table."""
    folder = tmp_path_factory.mktemp("starcoder")
    save_backbone(folder, "llama", causal=True)
    config = AutoConfig.for_model(
        "starcoder2", vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=16, max_position_embeddings=64, use_bias=False, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, embedding_dropout=0.0, residual_dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return str(folder)


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_fit_resumes_and_its_checkpoint_predicts_and_is_exported_without_watching(
    starcoder: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path, blind: Callable[[], None]
) -> None:
    def run(epochs: int, resume: Path | None = None) -> LanguageTaskModule:
        torch.manual_seed(1)
        module = LanguageTaskModule(starcoder, GLUE_TASKS["sst2"], tune="value", learning_rate=1e-2)
        trainer = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=epochs, limit_train_batches=2)
        data = Glue(starcoder, "sst2", data_dir=sst2_dir, batch_size=4, num_workers=0)
        trainer.fit(module, data, ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / f"{epochs}{'-resumed' if resume else ''}.ckpt")
        return module

    once = run(1)
    whole = run(2, tmp_path / "1.ckpt")
    blind()
    resumed = run(2, tmp_path / "1.ckpt")
    torch.testing.assert_close(values(resumed), values(whole), rtol=0, atol=0)
    assert not torch.equal(values(once)["model.model.layers.0.self_attn.v_proj.bias"],
                           values(resumed)["model.model.layers.0.self_attn.v_proj.bias"])  # fmt: skip
    path = tmp_path / "2-resumed.ckpt"
    assert torch.load(path)[FOUND_KEY]["model"][0]["terms"]["value"] == "self_attn.v_proj"
    export(path, tmp_path / "peft", "peft")
    texts = ["the film was good"]
    predictions = [load(where).predict(texts)[0]["probabilities"]["positive"] for where in (path, tmp_path / "peft")]
    loaded = LanguageTaskModule(starcoder, GLUE_TASKS["sst2"], tune="value")
    load_adapter(loaded, path)
    torch.testing.assert_close(values(loaded), values(whole), rtol=0, atol=0)
    assert predictions[0] == pytest.approx(predictions[1], rel=1e-5)


class Plain(LightningModule):
    """Attention of plain torch, which only the training step shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(len(VOCABULARY), 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True), 2)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.encoder(self.embedding(batch[0])).square().sum(-1)[batch[1] == 1].mean().exp()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def fit_plain(make_trainer: MakeTrainer, epochs: int, resume: Path | None = None) -> tuple[Plain, Trainer]:
    torch.manual_seed(1)
    module = Plain()
    selection = BiasSelectionCallback("fixed", ["value"], head="none")
    trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()], max_epochs=epochs)
    trainer.fit(module, token_batches(), ckpt_path=resume)
    return module, trainer


def test_a_training_step_is_not_watched_again(
    make_trainer: MakeTrainer, tmp_path: Path, blind: Callable[[], None]
) -> None:
    _, trainer = fit_plain(make_trainer, 1)
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    expected = values(fit_plain(make_trainer, 2, path)[0])
    blind()
    torch.testing.assert_close(values(fit_plain(make_trainer, 2, path)[0]), expected, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="watched again"):
        fit_plain(make_trainer, 1)


def test_checkpoints_of_earlier_versions_are_watched_and_malformed_ones_refused(
    make_trainer: MakeTrainer, tmp_path: Path, blind: Callable[[], None]
) -> None:
    _, trainer = fit_plain(make_trainer, 1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt")
    del content[CHECKSUM_KEY]
    found = content.pop(FOUND_KEY)
    torch.save(content, tmp_path / "old.ckpt")
    fit_plain(make_trainer, 2, tmp_path / "old.ckpt")
    for record in ({"": [{"layer": "encoder"}]}, [found], {"": [{**found[""][0], "terms": {"value": 3}}]}):
        torch.save({**content, FOUND_KEY: record}, tmp_path / "bad.ckpt")
        with pytest.raises(CheckpointError, match="'beft_found' does not say where bias terms are"):
            load_adapter(Plain(), tmp_path / "bad.ckpt")
    blind()
    with pytest.raises(AssertionError, match="watched again"):
        fit_plain(make_trainer, 2, tmp_path / "old.ckpt")
