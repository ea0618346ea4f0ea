"""Watch one forward pass: what every attention takes, and which layers it comes from and goes to.

Every attention ends in ``scaled_dot_product_attention(q, k, v)``, or is spelled out as a matrix product, a softmax, and
a second matrix product. Both are seen as they are called. The graph of gradients leads from there back to the layers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from beft_lightning.parameters import clean_name

#: The order in which an attention takes its inputs.
INPUTS = ("query", "key", "value")

_SOFTMAXES = {torch.softmax, nn.functional.softmax, Tensor.softmax}
_PRODUCTS = {
    torch.matmul, torch.bmm, torch.baddbmm, torch.einsum,
    Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.baddbmm,
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
        # The first product (its two factors) and the softmax of attentions that are spelled out, by their outputs.
        self._products: dict[GradientEdge, tuple[Tensor, Tensor]] = {}
        self._softmaxes: dict[GradientEdge, tuple[Tensor, Tensor]] = {}
        self._results: dict[GradientEdge, SeenAttention] = {}

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

    def _found(self, inputs: dict[str, Tensor], output: Tensor, **facts: Any) -> None:
        if output.requires_grad:
            seen = SeenAttention(inputs, gradient_edge(output), **facts)
            self.attentions.append(seen)
            self._results[seen.output] = seen

    def _saw_softmax(self, logits: Tensor, weights: Tensor) -> None:
        reached = set(self.walk(logits))
        # Relative positions multiply too, but after queries and keys.
        if (first := next((edge for edge in self._products if edge in reached), None)) is not None:
            self._softmaxes[gradient_edge(weights)] = self._products[first]

    def _saw_product(self, factors: list[Tensor], output: Tensor) -> None:
        if len(factors) < 2:
            return
        left, right = factors[-2:]
        for weights, value in ((left, right), (right, left)):
            softmax = next((edge for edge in self.walk(weights) if edge in self._softmaxes), None)
            if softmax is not None:
                query, key = self._softmaxes[softmax]
                self._found({"query": query, "key": key, "value": value}, output)
                return
        self._products[gradient_edge(output)] = (left, right)

    def walk(self, tensor: Tensor, *, inside: str | None = None) -> Iterator[GradientEdge]:
        """Yield the places in the graph of gradients that ``tensor`` comes from, nearest first.

        The walk ends at outputs of layers, at results of attentions, and at parameters, which it still yields.

        Args:
            tensor: Where it starts.
            inside: Name of a module whose layers it passes.
        """
        if not tensor.requires_grad:
            return
        front = deque([gradient_edge(tensor)])
        passed = set(front)
        while front:
            edge = front.popleft()
            yield edge
            call = self.calls.get(edge)
            passes = call and inside is not None and call.name.startswith(f"{inside}.")
            if (call and not passes) or edge in self._results or edge in self._softmaxes:
                continue
            for node, number in edge.node.next_functions:
                if node is not None and (further := GradientEdge(node, number)) not in passed:
                    passed.add(further)
                    front.append(further)

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Watch what runs inside this context."""
        with ExitStack() as stack:
            for child in module.modules():
                if isinstance(child, nn.MultiheadAttention):
                    stack.callback(child.register_forward_hook(self._after_attention, with_kwargs=True).remove)
                elif _is_layer(child):
                    stack.callback(child.register_forward_pre_hook(self._before_layer).remove)
                    stack.callback(child.register_forward_hook(self._after_layer).remove)
            # A compiled module runs uncompiled.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(self)
            yield

    def _before_layer(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and not isinstance(layer, nn.Embedding):
            for edge in self.walk(inputs[0]):
                if edge in self._results and not self._results[edge].consumer:
                    self._results[edge].consumer = self.names[layer]

    def _after_layer(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, tuple) and output:
            output = output[0]  # Quantized layers return a scale, too.
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        if not output.requires_grad:
            output.requires_grad_()  # Everything below may be frozen.
        edge = gradient_edge(output)
        self.calls[edge] = Call(
            self.names[layer], edge, 1 if isinstance(layer, _CONVOLUTIONS) else -1, isinstance(layer, nn.Embedding)
        )

    def _after_attention(self, module: nn.Module, inputs: Any, kwargs: dict[str, Any], output: Any) -> None:
        taken = dict(zip(INPUTS, inputs, strict=False)) | kwargs
        shares = taken["query"] is taken["key"] or bool(set(self.walk(taken["query"])) & set(self.walk(taken["key"])))
        result = output[0]
        if not result.requires_grad:
            result.requires_grad_()
        self._found({}, result, module=self.names[module], shares_input=shares)


def gradient_edge(tensor: Tensor) -> GradientEdge:
    """Return where a tensor stands in the graph of gradients; equal for equal places."""
    edge = get_gradient_edge(tensor)
    return GradientEdge(edge.node, edge.output_nr)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among ``values`` and in lists of them, as ``einsum`` takes."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module multiplies its input with a matrix of its own."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1 and not any(True for _ in module.children())


def watch(module: nn.Module, forward: Callable[[], Any]) -> Watch:
    """Run ``forward`` once and return what was seen of the attentions in ``module``."""
    seen = Watch(module)
    with seen.watching(module):
        forward()
    return seen
