"""Watch one forward pass: what every attention takes, and which layers it comes from and goes to.

Every attention ends in ``scaled_dot_product_attention(q, k, v)``, or is spelled out as a matrix product, a softmax, and
a second matrix product. Both are seen as they are called. The graph of gradients leads from there back to the layers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from beft_lightning.bias.gradients import gradient_edge, is_vector, walk_back
from beft_lightning.parameters import clean_name

#: The order in which an attention takes its inputs.
INPUTS = ("query", "key", "value")

_SOFTMAXES = {torch.softmax, torch.special.softmax, nn.functional.softmax, Tensor.softmax}
_PRODUCTS = {
    torch.matmul, torch.linalg.matmul, torch.mm, torch.bmm, torch.baddbmm, torch.einsum, torch.tensordot,
    Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, Tensor.baddbmm,
}  # fmt: skip
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Args:
        name: The layer's name in the watched module.
        output: Where its output stands in the graph of gradients.
        channels: The output's dimension that the bias is added along.
        is_embedding: Whether the layer looks its outputs up.
    """

    name: str
    output: GradientEdge
    channels: int
    is_embedding: bool = False


@dataclass
class SeenAttention:
    """What one attention took and gave.

    Args:
        inputs: ``query``, ``key`` and ``value`` -> the tensor. Empty for ``nn.MultiheadAttention``.
        output: Where the result stands in the graph of gradients.
        module: Name of the ``nn.MultiheadAttention`` that computed it, which owns its projections itself.
        shares_input: Whether that module took query and key from one sequence.
        consumer: Name of the first layer that takes the result.
    """

    inputs: dict[str, Tensor]
    output: GradientEdge
    module: str = ""
    shares_input: bool = True
    consumer: str = ""


class Watch(TorchFunctionMode):
    """Sees the attentions of a forward pass, and the layers that are called.

    Args:
        module: The module that is watched.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {child: clean_name(name) for name, child in module.named_modules()}
        #: The outputs of layers: where the walk back through the graph ends.
        self.calls: dict[GradientEdge, Call] = {}
        self.attentions: list[SeenAttention] = []
        #: What the module gave.
        self.outputs: list[Tensor] = []
        # Attentions that are spelled out: the factors of products, the products that a softmax is of, and its result.
        self._products: dict[GradientEdge, tuple[Tensor, Tensor]] = {}
        self._softmaxes: dict[GradientEdge, list[tuple[Tensor, Tensor]]] = {}
        self._weighted: dict[GradientEdge, SeenAttention] = {}
        self._results: dict[GradientEdge, SeenAttention] = {}
        # Inputs of layers that have no gradient -> what the layers take in their place.
        self._followed: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is scaled_dot_product_attention:
            taken = dict(zip(INPUTS, args, strict=False)) | {name: kwargs[name] for name in INPUTS if name in kwargs}
            self._found(taken, output)
        elif func in _SOFTMAXES and output.requires_grad:
            self._saw_softmax(args[0] if args else kwargs["input"], output)
        elif func in _PRODUCTS and output.requires_grad:
            self._saw_product(list(_tensors([*args, *kwargs.values()])), output)
        return output

    def _found(self, inputs: dict[str, Tensor], output: Tensor, **facts: Any) -> SeenAttention | None:
        if not output.requires_grad:
            return None
        seen = SeenAttention(inputs, gradient_edge(output), **facts)
        self.attentions.append(seen)
        self._results[seen.output] = seen
        return seen

    def _saw_softmax(self, logits: Tensor, weights: Tensor) -> None:
        reached = set(self.walk(logits))
        if products := [factors for edge, factors in self._products.items() if edge in reached]:
            self._softmaxes[gradient_edge(weights)] = products

    def _saw_product(self, factors: list[Tensor], output: Tensor) -> None:
        if len(factors) < 2 or not output.requires_grad:
            return
        left, right = factors[-2:]
        for weights, value in ((left, right), (right, left)):
            softmax = next((edge for edge in self.walk(weights) if edge in self._softmaxes), None)
            if softmax is not None:
                self._saw_weighted(softmax, value, output)
                return
        self._products[gradient_edge(output)] = (left, right)

    def _saw_weighted(self, softmax: GradientEdge, value: Tensor, output: Tensor) -> None:
        """Note a product of attention weights with a value."""
        known = self._weighted.get(softmax)
        if known is not None and not self._comes_from_layer(value):
            return  # Relative positions have values, too.
        query, key = self._query_and_key(softmax, value)
        if known is not None and not self._comes_from_layer(known.inputs["value"]):
            known.inputs["value"] = value
        elif (seen := self._found({"query": query, "key": key, "value": value}, output)) is not None:
            self._weighted[softmax] = seen

    def _query_and_key(self, softmax: GradientEdge, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the product, among those that a softmax is of, that queries and keys are in.

        Queries and keys are multiplied with relative positions, too. These do not come from the sequence of the value.
        """
        products = self._softmaxes[softmax]
        if len(products) == 1:
            return products[0]
        sequence = self.ancestors(value)
        return max(products, key=lambda factors: sum(bool(sequence & self.ancestors(factor)) for factor in factors))

    def _comes_from_layer(self, tensor: Tensor) -> bool:
        return any(edge in self.calls for edge in self.walk(tensor))

    def ancestors(self, tensor: Tensor, *, inside: str = "") -> set[GradientEdge]:
        """Return where ``tensor`` comes from, back to the layers before a module, or to the results of attentions.

        Vectors among the parameters are left out: a norm that two sequences pass does not make them one.

        Args:
            tensor: Where the walk starts.
            inside: Name of the module whose layers it passes; all if empty.
        """
        return {edge for edge in self.walk(tensor, inside=inside) if not is_vector(edge)}

    def walk(self, tensor: Tensor, *, inside: str | None = None) -> Iterator[GradientEdge]:
        """Return the places in the graph of gradients that ``tensor`` comes from, nearest first.

        The walk ends at outputs of layers, at results of attentions, and at parameters, which it still yields.

        Args:
            tensor: Where it starts.
            inside: Name of a module whose layers it passes; empty for all layers, None for none.
        """

        def ends(edge: GradientEdge) -> bool:
            call = self.calls.get(edge)
            passes = call and inside is not None and call.name.startswith(inside and f"{inside}.")
            return bool(call and not passes) or edge in self._results or edge in self._softmaxes

        return walk_back([tensor], ends)

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Watch what runs inside this context."""
        with ExitStack() as stack:
            for child in module.modules():
                if isinstance(child, nn.MultiheadAttention):
                    stack.callback(child.register_forward_hook(self._after_attention, with_kwargs=True).remove)
                elif _is_layer(child):
                    stack.callback(child.register_forward_pre_hook(self._before_layer, with_kwargs=True).remove)
                    stack.callback(child.register_forward_hook(self._after_layer).remove)
            # A compiled module runs uncompiled.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(self)
            yield

    def _before_layer(self, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        taken = next(iter([*args, *kwargs.values()]), None)
        if not isinstance(taken, Tensor) or not taken.is_floating_point():
            return None
        for edge in self.walk(taken):
            if edge in self._results and not self._results[edge].consumer:
                self._results[edge].consumer = self.names[layer]
        if taken.requires_grad or not args:
            return None
        # Layers that take one tensor show it, although it has no gradient: the input itself, or what is frozen.
        _, followed = self._followed.setdefault(id(taken), (taken, _with_gradient(taken)))
        return (followed, *args[1:]), kwargs

    def _after_layer(self, layer: nn.Module, inputs: Any, output: Any) -> Any:
        result = output[0] if isinstance(output, tuple) and output else output  # Quantized layers return a scale, too.
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return None
        result = _with_gradient(result)
        edge = gradient_edge(result)
        self.calls[edge] = Call(
            self.names[layer], edge, 1 if isinstance(layer, _CONVOLUTIONS) else -1, isinstance(layer, nn.Embedding)
        )
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def _after_attention(self, module: nn.Module, inputs: Any, kwargs: dict[str, Any], output: Any) -> Any:
        taken = dict(zip(INPUTS, inputs, strict=False)) | kwargs
        shares = taken["query"] is taken["key"] or bool(set(self.walk(taken["query"])) & set(self.walk(taken["key"])))
        result = _with_gradient(output[0])
        self._found({}, result, module=self.names[module], shares_input=shares)
        return (result, *output[1:])


def _with_gradient(tensor: Tensor) -> Tensor:
    """Return a copy that has a gradient, is no leaf, and no view, so that the walk finds it behind changes in place."""
    with torch.enable_grad():
        return (tensor if tensor.requires_grad else tensor.detach().requires_grad_()).clone()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among ``values`` and in collections of them, as ``einsum`` takes and models give."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | Mapping):
            yield from _tensors(value.values() if isinstance(value, Mapping) else value)


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module multiplies its input with a matrix of its own."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1 and not any(True for _ in module.children())


def watch(module: nn.Module, forward: Callable[[], Any]) -> Watch:
    """Run ``forward`` once and return what was seen of the attentions in ``module``."""
    seen = Watch(module)
    with seen.watching(module):
        seen.outputs = list(_tensors([forward()]))
    return seen
