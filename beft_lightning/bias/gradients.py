"""The graph of gradients: where tensors stand in it, and what they come from."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge


def gradient_edge(tensor: Tensor) -> GradientEdge:
    """Return where a tensor stands in the graph of gradients; equal for equal places."""
    edge = get_gradient_edge(tensor)
    return GradientEdge(edge.node, edge.output_nr)


def walk_back(
    tensors: Iterable[Tensor], ends: Callable[[GradientEdge], object] = lambda edge: False
) -> Iterator[GradientEdge]:
    """Yield the places in the graph of gradients that tensors come from, nearest first.

    Args:
        tensors: Where the walk starts; those without a gradient are left out.
        ends: Tells where it goes no further. These places are still yielded.
    """
    front = deque(gradient_edge(tensor) for tensor in tensors if tensor.requires_grad)
    passed = set(front)
    while front:
        edge = front.popleft()
        yield edge
        if ends(edge):
            continue
        for node, number in edge.node.next_functions:
            if node is not None and (further := GradientEdge(node, number)) not in passed:
                passed.add(further)
                front.append(further)


def is_vector(edge: GradientEdge) -> bool:
    """Return whether a place in the graph is that of a parameter with one dimension."""
    variable = getattr(edge.node, "variable", None)
    return isinstance(variable, nn.Parameter) and variable.dim() < 2


def custom_functions(tensors: Iterable[Tensor]) -> list[str]:
    """Return the names of the functions outside of torch that tensors come from, such as kernels of attention."""
    nodes: Iterator[object] = (edge.node for edge in walk_back(tensors))
    return sorted(
        {type(node).__name__.removesuffix("Backward") for node in nodes if isinstance(node, BackwardCFunction)}
    )
