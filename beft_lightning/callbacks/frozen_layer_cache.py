"""Keep what enters the lowest trained layer, so that the frozen layers below run once for each example."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from beft_lightning.bias.lookup import pretrained_model
from beft_lightning.errors import BeftError

#: By how much kept states may differ from computed ones, as a share of the largest: other paddings round otherwise.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}


class FrozenLayerCache(Callback):
    """Run the frozen layers below the lowest trained one in the first epoch only.

    For a fit that trains upper layers or the head: ``tune`` is ``head``, ``value.5``, or a selection of single layers.
    From the second epoch on a training batch whose examples have all been seen starts at the lowest trained layer, with
    what entered it before. The states are kept on the model's device, without padding: for each token as many values as
    the model is wide. A resumed fit keeps them anew. Scores, races and evaluations run the whole model.

    Losses equal those of a fit without it up to rounding, and to the last bit where all batches have one shape: how an
    example is padded changes the last bits of its states. Kept states are compared with computed ones whenever an
    example is computed again, and on the first batch that could do without.

    Args:
        below: Mode of the layers below while training: ``train``, where nothing there is random, or ``eval``, which
            turns their dropout off; this changes the fit, with or without a cache.

    Example::

        module = LanguageTaskModule(backbone, data.task, tune="value.5")
        Trainer(callbacks=[FrozenLayerCache(below="eval")]).fit(module, data)
    """

    def __init__(self, below: Literal["train", "eval"] = "train") -> None:
        if below not in ("train", "eval"):
            raise BeftError(f"below is {below!r}: choose 'train' or 'eval'.")
        self.below = below
        self._layers = nn.ModuleList()
        self._frozen: list[nn.Module] = []
        self._outside: list[nn.Module] = []
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._checked = False
        self._modes: dict[nn.Module, bool] = {}
        self._hook: RemovableHandle | None = None
        self._output: Any = None
        self._batch: dict[str, Any] = {}

    @property
    def kept_bytes(self) -> int:
        """Memory of the kept states and their token ids."""
        return sum(each.numel() * each.element_size() for pair in self._kept.values() for each in pair)

    def expected_bytes(self, width: int, batches: Iterable[Any]) -> int:
        """Return the memory that an epoch's examples will take, with states in fp32.

        Args:
            width: Values of a token's state.
            batches: The batches of an epoch.

        Raises:
            BeftError: If the batches have a form that cannot be kept.
        """
        tokens = sum(int(_checked_batch(batch)["attention_mask"].sum()) for batch in batches)
        return tokens * (4 * width + torch.int64.itemsize)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the frozen layers, once it is decided what is trained."""
        if trainer.world_size > 1:
            raise BeftError(
                f"FrozenLayerCache works in one process, and this fit has {trainer.world_size}, between which examples "
                "move at each epoch. Leave it out, or set trainer.devices and trainer.num_nodes to 1."
            )
        model = pretrained_model(pl_module).base_model
        self._layers = _stack(model)
        trained = [i for i, layer in enumerate(self._layers) if any(p.requires_grad for p in layer.parameters())]
        lowest = min(trained, default=len(self._layers))
        if lowest == 0:
            raise BeftError("FrozenLayerCache has nothing to keep: the lowest layer is trained. Leave it out.")
        self._frozen = list(self._layers[:lowest])
        upper = {part for layer in self._layers[lowest:] for part in layer.modules()}
        self._outside = [part for part in model.modules() if part not in upper]
        if self.below == "train" and (name := _random_part(self._outside)):
            raise BeftError(
                f"FrozenLayerCache: what enters the lowest trained layer ({lowest}) is random, by dropout ({name}). "
                "Set below to 'eval' to turn dropout off below that layer, or leave the cache out."
            )
        self._kept, self._checked = {}, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put the kept states in the place of the frozen layers, or arrange to keep what they give."""
        if batch_idx == 0 and any(p.requires_grad for layer in self._frozen for p in layer.parameters()):
            raise BeftError("FrozenLayerCache: a layer was unfrozen that was frozen when the fit began: leave it out.")
        self._batch = _checked_batch(batch)
        if self.below == "eval":
            self._modes = {part: part.training for part in self._outside}
            for part in self._outside:
                part.training = False
        known = self._known()
        if self._checked and len(known) == len(self._batch["id"]):
            mask = self._batch["attention_mask"].bool()
            rows = torch.cat(list(known.values()))
            states = rows.new_zeros((*mask.shape, rows.shape[-1]))
            states[mask] = rows
            for place in range(len(self._frozen)):
                self._layers[place] = _Given(states)
        else:
            self._hook = self._frozen[-1].register_forward_hook(self._take)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Put the frozen layers back, and keep what they have given."""
        self._put_back()
        if self._output is not None:
            self._keep(self._output)
            self._output = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Put the frozen layers back after a batch that the training step has skipped."""
        self._put_back()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say once how much memory the states take."""
        if trainer.current_epoch == 0:
            rank_zero_info(f"Kept the states of {len(self._kept)} examples ({self.kept_bytes / 2**20:.1f} MiB).")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model whole."""
        self._put_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory."""
        self._put_back()
        self._kept, self._layers, self._frozen, self._outside = {}, nn.ModuleList(), [], []

    def _take(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self._output = output

    def _put_back(self) -> None:
        for place, layer in enumerate(self._frozen):
            self._layers[place] = layer
        for part, training in self._modes.items():
            part.training = training
        if self._hook is not None:
            self._hook.remove()
        self._modes, self._hook = {}, None

    def _known(self) -> dict[int, Tensor]:
        """Return the kept states of the batch's examples, by their place in it."""
        known = {}
        for place, number in enumerate(self._batch["id"].tolist()):
            if number in self._kept:
                tokens, known[place] = self._kept[number]
                if not torch.equal(tokens, self._tokens(place)):
                    raise BeftError(f"FrozenLayerCache: the tokens of example {number} have changed: leave it out.")
        return known

    def _tokens(self, place: int) -> Tensor:
        tokens: Tensor = self._batch["input_ids"][place][self._batch["attention_mask"][place].bool()]
        return tokens

    def _keep(self, output: Any) -> None:
        """Keep the states of new examples, and compare those of the others."""
        if not isinstance(output, Tensor) or output.shape[:2] != self._batch["input_ids"].shape:
            raise BeftError("FrozenLayerCache: a layer of this architecture gives more than states: leave it out.")
        if output.requires_grad:
            raise BeftError("FrozenLayerCache: something below the lowest trained layer is trained: leave it out.")
        known = self._known()
        for place, number in enumerate(self._batch["id"].tolist()):
            states = output[place][self._batch["attention_mask"][place].bool()]
            if place not in known:
                self._kept[number] = self._tokens(place).clone(), states.clone()
            elif (states - known[place]).abs().max() > _TOLERANCE.get(states.dtype, 0.0) * states.abs().max():
                raise BeftError(
                    f"FrozenLayerCache: what enters the lowest trained layer for example {number} differs from before "
                    "by more than rounding: something below is random, or depends on padding. Leave it out."
                )
        self._checked = self._checked or len(known) == len(self._batch["id"])


class _Given(nn.Module):
    """Stands in the place of a layer, and gives states whatever enters it."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """Return the states."""
        return self.states


def _stack(model: nn.Module) -> nn.ModuleList:
    """Return the layers of a model.

    Raises:
        BeftError: If it has no list of layers, or several.
    """
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    outer = [part for name, part in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        raise BeftError(
            f"FrozenLayerCache needs a model with one stack of layers; {type(model).__name__} has {len(outer)}: "
            "leave it out."
        )
    return outer[0]


def _random_part(parts: list[nn.Module]) -> str | None:
    """Return the class of a part that drops values while training; ``None`` if there is none."""
    for part in parts:
        named = {name: value for name, value in vars(part).items() if "drop" in name or name == "p"}
        if part.training and any(isinstance(value, float) and value > 0 for value in named.values()):
            return type(part).__name__
    return None


def _checked_batch(batch: Any) -> dict[str, Any]:
    """Return a batch that has a text a row.

    Raises:
        BeftError: If it has another form.
    """
    plain = isinstance(batch, dict) and {"id", "input_ids", "attention_mask"} <= batch.keys()
    if not plain or batch["input_ids"].shape != batch["attention_mask"].shape or "segment_ids" in batch:
        raise BeftError("FrozenLayerCache needs batches with a text a row: input_ids, attention_mask and id.")
    if len(batch["id"]) != len(batch["input_ids"]) or batch["input_ids"].dim() != 2:
        raise BeftError("FrozenLayerCache needs batches with a text a row: leave it out for several options or parts.")
    return batch
