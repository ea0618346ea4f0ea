"""Merge trained values into a model so that transformers alone can load it."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.bias.lookup import attention_of
from beft_lightning.bias.owners import bias_owners
from beft_lightning.bias.structure import add_biases
from beft_lightning.errors import ArchitectureError, ExportError
from beft_lightning.export.materialize import materialize

#: Switches in the configurations of transformers that give a model's linear layers biases, those of few layers first.
_SWITCHES = (("attention_bias",), ("mlp_bias",), ("attention_bias", "mlp_bias"), ("bias",))


def merge(model: PreTrainedModel, trained: Mapping[str, Tensor]) -> None:
    """Put trained values into a model, so that its own configuration still builds it.

    Biases that the model lacks come in through a switch of its configuration, such as ``attention_bias``, or, as
    attention passes the value bias on as a constant, through the bias of the output projection.

    Args:
        model: The base; changed in place.
        trained: Trained values by their names in ``model``, fp32.

    Raises:
        ExportError: If there is no place for a bias that the model lacks.
    """
    known = dict(model.named_parameters())
    added = {name: value for name, value in trained.items() if name not in known}
    for name, value in trained.items():
        if name in known:
            known[name].data = value.to(known[name].device)
    if added and not _switch_on(model, added):
        _fold(model, added)


def make_plain(model: PreTrainedModel) -> None:
    """Make a fitted model one that ``save_pretrained`` writes as a whole, and ``from_pretrained`` reads.

    Split biases become whole ones. Added biases come in through the configuration, as in :func:`merge`. The model
    computes the same, up to rounding where a value bias has to move behind the attention.

    Example::

        make_plain(module.model)
        module.model.save_pretrained("folder")

    Args:
        model: The model inside a fitted module; changed in place.

    Raises:
        ExportError: If there is no place for a trained bias; the model keeps it then.
    """
    materialize(model)
    with torch.device("meta"):
        expected = dict(type(model)(model.config).named_parameters()).keys()
    added = {name: p for name, p in model.named_parameters() if name not in expected and name.endswith(".bias")}
    for name in added:
        model.get_submodule(name.removesuffix(".bias")).register_parameter("bias", None)
    try:
        merge(model, {name: bias.detach() for name, bias in added.items() if bias.any()})
    except ExportError:
        for name, bias in added.items():
            model.get_submodule(name.removesuffix(".bias")).register_parameter("bias", bias)
        raise


def _switch_on(model: PreTrainedModel, added: Mapping[str, Tensor]) -> bool:
    """Add biases through switches of the configuration; other biases that come along are zero.

    Returns:
        False, with the model unchanged, if no switch adds all of them.
    """
    for switches in _SWITCHES:
        if any(getattr(model.config, switch, None) is not False for switch in switches):
            continue
        config = copy.deepcopy(model.config)
        for switch in switches:
            setattr(config, switch, True)
        with torch.device("meta"):
            twin = type(model)(config)
        gained = dict(twin.named_parameters()).keys() - dict(model.named_parameters()).keys()
        if added.keys() <= gained:
            add_biases(model, gained)
            for name, value in added.items():
                model.get_parameter(name).data.copy_(value)
            model.config = config
            return True
    return False


@torch.no_grad()
def _fold(model: PreTrainedModel, added: Mapping[str, Tensor]) -> None:
    """Fold value biases into the biases of the output projections.

    Attention weights sum to 1, so that attention passes a value bias ``b`` on as the constant ``W_o b``.

    Raises:
        ExportError: If a bias is no value bias, or the output projection has no bias.
    """
    try:
        owners = bias_owners(model)
    except ArchitectureError:
        owners = {}
    paths = {id(module): path for path, module in model.named_modules()}
    places = {f"{paths[id(owner)]}.bias": index for index, owner in owners.get("value", {}).items()}
    outputs = owners.get("attention_output", {})
    mlp_outputs = owners.get("mlp_out", {}) if attention_of(model.config).parallel_mlp else {}
    for name, value in added.items():
        index = places.get(name, -1)
        output = outputs.get(index)
        # GPT-J's output projection has no bias, but its MLP's is added to the same sum.
        receiver = mlp_outputs.get(index) if getattr(output, "bias", None) is None else output
        if not isinstance(output, nn.Linear) or not isinstance(receiver, nn.Linear) or receiver.bias is None:
            raise ExportError(
                f"a plain {model.config.model_type} model has no place for {name!r}, which was added and trained: its "
                "configuration has no switch for it, and only a value bias can move into the bias of an output "
                "projection, where there is one. Use the format 'peft', which adds it while the model runs."
            )
        if not output.weight.is_floating_point():
            raise ExportError(
                f"{name!r}, which was added and trained, has to move behind weights that are quantized, where it "
                "would be rounded: use the format 'peft'."
            )
        heads = value.view(-1, output.in_features // model.config.num_attention_heads)
        # Groups of heads may share a value.
        seen = heads.repeat_interleave(output.in_features // value.numel(), dim=0).flatten()
        receiver.bias.data = receiver.bias.float() + output.weight.float() @ seen.to(output.weight.device)
