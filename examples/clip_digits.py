"""Contrastive fine-tuning of a two-tower model: handwritten digits and captions, through the callback.

A tiny CLIP is trained to tell which caption ("the digit seven") belongs to which picture. The callback scores the bias
terms of both towers, apart by tower, and trains the best of them beside the projections. Run it with
``python examples/clip_digits.py``; it takes seconds on a CPU and needs scikit-learn.
"""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split
from transformers import CLIPConfig, CLIPModel

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = ["<pad>", "<start>", "the", "digit", *NUMBERS, "<end>"]
CAPTIONS = torch.tensor([[WORDS.index(word) for word in f"<start> the digit {n} <end>".split()] for n in NUMBERS])
_SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": len(WORDS) - 1}


class ContrastiveDigits(LightningModule):
    """A CLIP and its contrastive loss: nothing here knows of biases."""

    def __init__(self) -> None:
        super().__init__()
        self.net = CLIPModel(
            CLIPConfig(
                text_config={**_SHAPE, **_TOKENS, "vocab_size": len(WORDS), "max_position_embeddings": 5},
                vision_config={**_SHAPE, "image_size": 8, "patch_size": 2, "num_channels": 1},
                projection_dim=16,
            )
        )

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Return how well each caption suits each image, shape ``(images, captions)``."""
        scores: Tensor = self.net(pixel_values=images, input_ids=captions).logits_per_image
        return scores

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return the contrastive loss of images and their captions, in both directions."""
        images, digits = batch
        scores = self(images, CAPTIONS.to(self.device)[digits])
        # A digit may stand in a batch several times: all its captions suit all its images.
        same = (digits[:, None] == digits).float()
        target = same / same.sum(dim=1, keepdim=True)
        loss = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        """Log how often the best of the ten captions is the right one."""
        images, digits = batch
        right = self(images, CAPTIONS.to(self.device)).argmax(dim=1) == digits
        self.log("val_accuracy", right.float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer of what is trainable by then."""
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Return the training and the validation batches of scikit-learn's 1,797 digits."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    train, validation = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.8, 0.2])
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(validation, batch_size=360)


def main(epochs: int = 10) -> tuple[ContrastiveDigits, BiasSelectionCallback]:
    """Score the biases of both towers and train the best term."""
    seed_everything(1, verbose=False)
    module = ContrastiveDigits()
    selection = BiasSelectionCallback(
        scope=["vision_model", "text_model"],
        head=["*_projection.weight", "*logit_scale"],
        batches=8,
    )
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[selection, AdapterCheckpoint()])
    trainer.fit(module, *loaders())
    print(f"Trained {selection.selected}; accuracy {trainer.callback_metrics['val_accuracy']:.3f}")
    return module, selection


if __name__ == "__main__":
    main()
