"""Find the bias terms of any model by watching a forward pass of it, or of its small twin."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.confirmation import check_found, unseen_layers
from beft_lightning.bias.description import HOW_TO_MAP, described
from beft_lightning.bias.gradients import custom_functions
from beft_lightning.bias.places import AttentionPlace, attention_place, numbered
from beft_lightning.bias.sample_inputs import sample_inputs
from beft_lightning.bias.sources import source
from beft_lightning.bias.standard_names import is_mlp_input, named_terms
from beft_lightning.bias.twin import first_line, outside_vocabulary, twins
from beft_lightning.bias.watching import Watch, watch
from beft_lightning.errors import ArchitectureError, NoAttentionError


def discover(module: nn.Module, forward: Callable[[], Any]) -> list[Architecture]:
    """Find where the bias terms of any module are, by watching one forward pass.

    Attention has to run in torch's ``scaled_dot_product_attention`` or ``nn.MultiheadAttention``, or be spelled out as
    matrix product, softmax, matrix product.

    Example::

        found = discover(module, lambda: module(images))
        freeze_except(module, ["value"], architecture=found)

    Args:
        module: Any module. Its parameters do not change.
        forward: Runs it on a few examples.

    Returns:
        An architecture for each stack of layers, in the order of the forward pass.

    Raises:
        ArchitectureError: If the forward pass lacks inputs, or no attention was seen whose inputs come from layers of
            their own.
    """
    return discover_in(module, forward, {"": module})[""]


def discover_in(
    module: nn.Module, forward: Callable[[], Any], parts: Mapping[str, nn.Module]
) -> dict[str, list[Architecture]]:
    """Find where the bias terms of some submodules are; see :func:`discover`.

    Args:
        module: Any module. Its parameters do not change.
        forward: Runs it on a few examples.
        parts: The submodules, by their names in ``module``.

    Returns:
        For each of them an architecture for each stack of layers, by paths in it.

    Raises:
        NoAttentionError: If no attention was seen in one of them.
        ArchitectureError: As in :func:`discover`.
    """
    try:
        seen = watch(module, forward)
    except TypeError as error:
        raise ArchitectureError(
            f"{type(module).__name__}: the forward pass to watch failed: {first_line(error)}. Give all that it needs, "
            f"as in `discover(module, lambda: module(images, mask=mask))`. {HOW_TO_MAP}"
        ) from error
    places = _places([seen])
    found = {}
    for name, part in parts.items():
        inside = [place for one in places if (place := one.within(name)) is not None]
        if name and not inside:
            raise NoAttentionError(
                f"{name} ({type(part).__name__}): no attention was seen in it in this forward pass. {HOW_TO_MAP}"
            )
        found[name] = _stacks(part, inside, [seen])
    return found


def architectures_of_twin(model: PreTrainedModel) -> list[Architecture]:
    """Find where the bias terms of a transformers model are, by watching a small twin that is built from its config.

    The model itself is not run, so that it may be on any device, of any precision, and sharded.

    Args:
        model: Any transformers model.

    Returns:
        An architecture for each stack of layers, in the order of the forward pass. Models in it that do not run on
        made-up inputs together are run one by one, and come after.

    Raises:
        NoAttentionError: If no attention is seen in a twin.
        ArchitectureError: If no twin can be built and run, or what is seen in it has no clear place.
    """
    model_class: Any = type(model)
    config_class: Any = type(model.config)
    found = _of_twin(model_class, config_class, model.config.to_json_string(use_diff=False))
    if isinstance(found, ArchitectureError):
        raise type(found)(str(found))
    return list(found)


def confirmed(module: nn.Module, found: list[Architecture]) -> list[Architecture]:
    """Return what watching found, after a check against the names of the layers; see :func:`.check_found`.

    Raises:
        ArchitectureError: If the names speak against it. The message says what was found, to correct and give it.
    """
    try:
        check_found(module, found)
    except ArchitectureError as error:
        raise ArchitectureError(
            f"{type(module).__name__}: where the biases are could not be found for certain: {error} What was "
            f"seen:\n{described(found)}\nCorrect it, leave out what you do not need, and give it as `architecture`. "
            f"{HOW_TO_MAP}"
        ) from None
    return found


@lru_cache(maxsize=64)
def _of_twin(model_class: Any, config_class: Any, config: str) -> list[Architecture] | ArchitectureError:
    """Return what a twin shows, or why it shows nothing: models are asked for in every fit and evaluation."""
    try:
        with torch.random.fork_rng(devices=[]):  # for the inputs
            twin, runs = run_twin(model_class, config_class.from_dict(json.loads(config, object_hook=_entry)))
        watches = [run.seen for run in runs]
        return _stacks(twin, _places(watches), watches)
    except ArchitectureError as error:
        return error.with_traceback(None)


def _entry(value: dict[str, Any]) -> Any:
    """Return an entry of a configuration in JSON, where transformers writes ``{"__float__": "Infinity"}``."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


@dataclass(frozen=True)
class Run:
    """A forward pass of a twin, or of a model in it, and what was seen of it."""

    forward: Callable[[], Any]
    seen: Watch


def run_twin(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> tuple[PreTrainedModel, list[Run]]:
    """Build the smallest twin that runs on made-up inputs, and watch it.

    Args:
        model_class: Its class.
        config: The configuration that its own is like.

    Returns:
        The twin and its runs: of the whole, and of models in it that did not run then.

    Raises:
        NoAttentionError: If none has attention.
        ArchitectureError: If none can be built and run.
    """
    problems: list[str] = []
    failures: list[str] = []
    unseen: list[Watch] = []  # what runs showed that had no attention
    for twin in twins(model_class, config, problems):
        runs = list(_runs(twin, failures))
        if any(run.seen.attentions for run in runs):
            return twin, runs
        unseen = unseen or [run.seen for run in runs]
    if unseen:
        raise NoAttentionError(f"{model_class.__name__}: {_what_was_seen(unseen)} {HOW_TO_MAP}")
    outside = ", ".join(outside_vocabulary(config))
    cause = (
        f"The configuration names tokens outside of the vocabulary, which may be why: {outside}. " if outside else ""
    )
    raise ArchitectureError(
        f"model type {config.model_type!r}: no small {model_class.__name__} could be run to watch its attention "
        f"({'; '.join([*dict.fromkeys(failures or problems)][:3])}). {cause}Run it yourself, `found = "
        f"beft_lightning.bias.discover(model, lambda: model(**inputs))`, and give `architecture=found`. {HOW_TO_MAP}"
    )


def _runs(twin: PreTrainedModel, failures: list[str]) -> Iterator[Run]:
    called: list[str] = []
    for name, part in twin.named_modules():
        if not isinstance(part, PreTrainedModel) or any(layer.startswith(f"{name}.") for layer in called):
            continue
        if (run := _run(twin, part, failures)) is not None:
            called += [call.name for call in run.seen.calls.values()]
            yield run


def _run(twin: PreTrainedModel, part: PreTrainedModel, failures: list[str]) -> Run | None:
    for inputs in sample_inputs(part):
        forward = partial(part, **inputs)
        try:
            return Run(forward, watch(twin, forward))
        except Exception as error:  # Models raise anything for inputs that do not fit.
            failures.append(f"with {', '.join(inputs)} {first_line(error)}")
    return None


def _places(watches: Iterable[Watch]) -> list[AttentionPlace]:
    """Return where each attention has its terms, with an output projection only where it is one."""
    places = [place for seen in watches for one in seen.attentions if (place := attention_place(seen, one)) is not None]
    projections = {path for place in places for term, path in place.by_term.items() if not term.endswith("output")}
    for place in places:
        outputs = [(term, path) for term, path in place.terms.items() if term.endswith("output")]
        for term in [term for term, path in outputs if path in projections or is_mlp_input(path)]:
            del place.terms[term]  # The attention has no output projection.
    return places


def _stacks(module: nn.Module, places: list[AttentionPlace], watches: list[Watch]) -> list[Architecture]:
    """Return an architecture for each stack of layers that has attention, by paths in ``module``."""
    _check_roles(places)
    stacks: list[tuple[str, AttentionPlace]] = []
    for layer, example, place in numbered(places):
        # Self and cross attention of a layer are one stack; two kinds of self attention are two.
        stack = next((one for known, one in stacks if known == layer and not one.by_term.keys() & place.by_term), None)
        if stack is None:
            stack = AttentionPlace()
            if all(known != layer for known, _ in stacks):
                taken = {path.removeprefix(f"{example}.") for one in places for path in one.paths}
                stack = AttentionPlace(*named_terms(module.get_submodule(example), taken))
            stacks.append((layer, stack))
        stack.terms.update(place.terms)
        stack.fused.update(place.fused)
    if not stacks:
        raise ArchitectureError(f"{type(module).__name__}: {_what_was_seen(watches)} {HOW_TO_MAP}")
    found = [Architecture(layer, terms=stack.terms, fused=stack.fused) for layer, stack in stacks]
    if unseen := unseen_layers(module, found, places):
        raise ArchitectureError(
            f"{type(module).__name__}: {len(unseen)} layers have the same place as projections of attention, such as "
            f"{unseen[0]!r}, and no attention was seen to take what they compute. {HOW_TO_MAP}"
        )
    return found


def _check_roles(places: Iterable[AttentionPlace]) -> None:
    """Check that no layer is one thing in one attention, and another in another."""
    ways: dict[str, dict[str, None]] = {}
    for place in places:
        for term, path in place.terms.items():
            ways.setdefault(path, {})[term] = None
        for path, fused in place.fused.items():
            ways.setdefault(path, {})[f"{dict(fused.parts)} in {fused.groups} groups"] = None
    for path, found in ways.items():
        if len(found) > 1:
            raise ArchitectureError(
                f"attentions share the layer {path!r}, whose outputs are {' and also '.join(found)}. {HOW_TO_MAP}"
            )


def _what_was_seen(watches: list[Watch]) -> str:
    """Return in words why no bias term was found."""
    layers = list(dict.fromkeys(call.name for seen in watches for call in seen.calls.values()))
    called = f"{len(layers)} layers were called ({', '.join(layers[:6])}{', ...' if len(layers) > 6 else ''})"
    attentions = [(seen, one) for seen in watches for one in seen.attentions]
    if attentions:
        watch, first = attentions[0]
        sources = {term: source(watch, tensor) for term, tensor in first.inputs.items()}
        origins = [f"{term} from {repr(found.layer) if found else 'no layer'}" for term, found in sources.items()]
        return (
            f"{len(attentions)} attentions were seen, and none takes query, key or value from layers of its own; the "
            f"first takes {', '.join(origins)}; {called}."
        )
    kernels = custom_functions(tensor for seen in watches for tensor in seen.outputs)
    hidden = f" The output comes from {', '.join(kernels)}, which may hide attention." if kernels else ""
    return (
        f"no attention was seen in a forward pass in which {called}.{hidden} Seen would be "
        "scaled_dot_product_attention, nn.MultiheadAttention, and softmax between two matrix products; kernels that "
        "are called directly, such as those of flash-attention, cannot be."
    )
