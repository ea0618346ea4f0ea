"""Many adapters over one frozen base, in one batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from beft_lightning.bias.precision import half_dtype
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.serving.adapter import Adapter
from beft_lightning.serving.confirmation import rows_can_differ
from beft_lightning.serving.reading import AdapterReader
from beft_lightning.serving.rows import Rows, head_layers
from beft_lightning.serving.twin import merged
from beft_lightning.serving.vectors import BASE, VectorStack


class AdapterBank:
    """One frozen base with any number of adapters; every row of a batch is computed with its own.

    An adapter is one vector for each layer, which is added to the layer's output: the trained bias less the base's.
    All adapters lie stacked in memory. Those of a batch are looked up once, so that adapters can be added and removed
    from another thread while the model runs: a batch that has begun keeps its own.

    Example::

        bank = AdapterBank(AutoModelForCausalLM.from_pretrained("base"))
        bank.add("polite", "polite/checkpoints/last.ckpt")
        bank.add("terse", "terse_adapter")
        tokens = bank.generate(["polite", "terse", None], **tokenizer(prompts, return_tensors="pt", padding=True))

    Args:
        model: The base, with the head that its adapters were trained under; frozen, in evaluation mode from now on.
        autocast: Precision to compute in; by default the half precision that the base's weights have, if it has one.
    """

    def __init__(self, model: PreTrainedModel, autocast: torch.dtype | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self._autocast = half_dtype(model) if autocast is None else autocast
        self._vectors = VectorStack(model.device)
        self._slots: dict[str, int] = {}
        self._adapters: dict[str, Adapter] = {}
        self._layers: set[str] = set()
        self._lock, self._adding = RLock(), Lock()
        self._active: ContextVar[Rows | None] = ContextVar("rows", default=None)
        self._reader = AdapterReader(model)
        self._head = head_layers(model, model.base_model) if model.base_model is not model else {}
        model.register_forward_pre_hook(self._checking_hook(), with_kwargs=True)
        for path, layer in self._head.items():
            self._hook_head(path, layer)

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def names(self) -> list[str]:
        """Names of the adapters, in the order they were added."""
        with self._lock:
            return list(self._slots)

    @property
    def bytes(self) -> int:
        """Memory of the adapters' vectors."""
        return self._vectors.bytes

    def adapter(self, name: str) -> Adapter:
        """Return an adapter.

        Raises:
            BeftError: If there is none of this name.
        """
        with self._lock:
            if name not in self._adapters:
                raise BeftError(f"no adapter {name!r}; there are: {_listed(self._slots)}.")
            return self._adapters[name]

    def add(self, name: str, adapter: Adapter | str | Path) -> None:
        """Add an adapter, or put another one in its place.

        Args:
            name: What rows call it.
            adapter: Its values, or where they are: a checkpoint of a fit, or the folder of an adapter that PEFT reads
                (as ``export`` writes, or PEFT's own BEFT).

        Raises:
            BeftError: If it is damaged, was trained over another base, or changes more than biases and head.
        """
        if not isinstance(adapter, Adapter):
            adapter = self._reader.read(adapter)
        self._check_shapes(name, adapter)
        with self._adding:
            if new := [layer for layer in adapter.deltas if layer not in self._layers]:
                self._hook(new)
        with self._lock:
            previous = self._slots.get(name)
            self._slots[name] = self._vectors.put(adapter.deltas)
            self._adapters[name] = adapter
            if previous is not None:
                self._vectors.drop(previous)

    def remove(self, name: str) -> None:
        """Remove an adapter.

        Raises:
            BeftError: If there is none of this name.
        """
        with self._lock:
            self.adapter(name)
            self._vectors.drop(self._slots.pop(name))
            del self._adapters[name]

    @contextmanager
    def rows(self, adapters: Sequence[str | None], copies: int = 1) -> Iterator[PreTrainedModel]:
        """Give each row of the batches that follow its adapter, in this thread.

        Args:
            adapters: The name of each row's adapter; None for the base alone.
            copies: Rows of the model for each of them, next to each other, as beams are.

        Yields:
            The model, to be called with ``len(adapters) * copies`` rows.

        Raises:
            BeftError: If an adapter is unknown, or a batch has another number of rows.
        """
        with self._lock:
            found = [None if name is None else self.adapter(name) for name in adapters]
            vectors = self._vectors.rows([BASE if name is None else self._slots[name] for name in adapters])
        head = self._head if any(adapter and adapter.head for adapter in found) else {}
        weights = {path: _stacked([_value(a, path, "weight", layer) for a in found]) for path, layer in head.items()}
        biases = {path: _stacked([_value(a, path, "bias", layer) for a in found]) for path, layer in head.items()}
        with self._computing(Rows(len(found), copies, vectors, weights, biases)):
            yield self.model

    @torch.inference_mode()
    def generate(self, adapters: Sequence[str | None], input_ids: Tensor, **options: Any) -> Tensor:
        """Generate with each row's adapter: ``model.generate``, beams and several sequences for a row included.

        Args:
            adapters: The name of each row's adapter; None for the base alone.
            input_ids: The prompts, padded on the left.
            options: As for ``generate`` of transformers.
        """
        settings = {name: options.get(name) or 1 for name in ("num_beams", "num_return_sequences")}
        with self.rows(adapters, copies=max(settings.values())) as model:
            generate: Any = model.generate  # typed as a mixin's, which mypy takes for a Tensor
            tokens: Tensor = generate(input_ids=input_ids, **options)
        return tokens

    def alone(self, name: str) -> PreTrainedModel:
        """Return a model with the values of one adapter alone in it; it shares the base's matrices."""
        return merged(self.model, self.adapter(name))

    def _check_shapes(self, name: str, adapter: Adapter) -> None:
        """Check that a bank can add each vector to the output of its layer, and that head and base fit together."""
        layers = dict(self.model.named_modules())
        for path, delta in adapter.deltas.items():
            width = _outputs(layers.get(path))
            if width is None:
                raise CheckpointError(
                    f"adapter {name!r} has a bias for {path!r}, which in this base, {self._named()}, is no linear "
                    "layer or layer norm: serve it over the base it was trained on."
                )
            if delta.shape != (width,):
                raise CheckpointError(
                    f"adapter {name!r} has a bias of {delta.numel()} values for {path!r}, and this base, "
                    f"{self._named()}, has {width} outputs there: serve it over the base it was trained on."
                )
        known = {f"{path}.{own}" for path in self._head for own in ("weight", "bias")}
        if strange := [parameter for parameter in adapter.head if parameter not in known]:
            raise CheckpointError(
                f"adapter {name!r} changes {strange[0]!r}, which is neither a bias nor a linear layer of the head of "
                f"{type(self.model).__name__}: export it with the format 'hf', and serve it as a base."
            )

    def _named(self) -> str:
        return f"{self.model.name_or_path or type(self.model).__name__} ({self.model.config.model_type})"

    @contextmanager
    def _computing(self, rows: Rows | None) -> Iterator[None]:
        """Compute with rows' values, in the bank's precision, in this thread."""
        before = self._active.set(rows)
        try:
            with torch.autocast(self.model.device.type, self._autocast, enabled=self._autocast is not None):
                yield
        finally:
            self._active.reset(before)

    def _hook(self, paths: Sequence[str]) -> None:
        """Let layers add what rows have for them, after a sample has shown that they can."""
        layers = {path: self.model.get_submodule(path) for path in paths}

        def compute(batch: Mapping[str, Tensor], adapters: Sequence[Adapter]) -> Tensor:
            stacked = {path: torch.stack([a.deltas[path] for a in adapters]).to(self.model.device) for path in paths}
            with self._computing(Rows(len(adapters), 1, stacked, {}, {})):
                logits: Tensor = self.model(**batch).logits
            return logits

        with ExitStack() as hooks:  # whatever goes wrong, none stays: a second one would add everything twice
            for path, layer in layers.items():
                hooks.enter_context(layer.register_forward_hook(self._adding_hook(path)))
            problem = ""
            try:
                with self._computing(None):
                    widths = {path: _outputs(layer) or 0 for path, layer in layers.items()}
                    confirmed = rows_can_differ(self.model, widths, compute)
            except BeftError as error:
                confirmed, problem = False, f" ({error})"
            if not confirmed:
                raise CheckpointError(
                    f"in a {self.model.config.model_type} model, the biases of {', '.join(paths[:2])} cannot differ "
                    f"from row to row of a batch{problem}: serve the adapter merged, as `export --format hf` writes it."
                )
            hooks.pop_all()
        self._layers.update(paths)

    # Hooks are functions, not methods: copies of the model share them instead of copying the bank. In a copy they do
    # nothing, as its values are its own.

    def _adding_hook(self, path: str) -> Any:
        own = self.model.get_submodule(path)

        def add(layer: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            rows = self._active.get()
            return rows.add(path, output) if rows is not None and layer is own and path in rows.vectors else None

        return add

    def _hook_head(self, path: str, own: nn.Module) -> None:
        def compute(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            rows = self._active.get()
            return rows.head(path, args[0]) if rows is not None and layer is own and path in rows.weights else None

        own.register_forward_hook(compute)

    def _checking_hook(self) -> Any:
        def check(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            rows = self._active.get()
            given = [*args, *(kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None)]
            if rows is not None and given and model is self.model:
                rows.check(len(given[0]))

        return check


def _outputs(layer: nn.Module | None) -> int | None:
    """Return the number of outputs of a layer that adds its bias last; None for other layers."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, Conv1D):
        return int(layer.nf)
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        return int(layer.normalized_shape[0])
    return None


def _value(adapter: Adapter | None, path: str, own: str, layer: nn.Linear) -> Tensor:
    """Return a parameter of a head's layer: the adapter's, or the base's; zeros in place of no bias."""
    value: Tensor | None = None if adapter is None else adapter.head.get(f"{path}.{own}")
    if value is None:
        value = getattr(layer, own)
    if value is None:
        outputs = layer.out_features if adapter is None else len(adapter.head.get(f"{path}.weight", layer.weight))
        value = torch.zeros(outputs)
    return value.detach().to(layer.weight.device, torch.float32)


def _stacked(values: Sequence[Tensor]) -> Tensor:
    """Stack tensors; behind those with fewer outputs come zeros."""
    return nn.utils.rnn.pad_sequence(list(values), batch_first=True)


def _listed(names: Mapping[str, Any], most: int = 20) -> str:
    shown = [repr(name) for name in names][:most]
    return ", ".join([*shown, "..."] if len(names) > most else shown) or "none"
