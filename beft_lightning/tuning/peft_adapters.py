"""LoRA and its relatives on the query, key and value projections, through peft."""

from typing import Any

from torch import nn

from beft_lightning.bias.architectures import pretrained_model
from beft_lightning.bias.terms import bias_owners
from beft_lightning.errors import BeftError

#: Kind -> name of the method in peft, and what its configuration is given unless told otherwise. LoRA's values are the
#: published ones (MeZO, arXiv 2305.17333).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("Lora", {"r": 8, "lora_alpha": 16}),
    "dora": ("Lora", {"r": 8, "lora_alpha": 16, "use_dora": True}),
    "vera": ("Vera", {"r": 64}),
    "ia3": ("IA3", {"feedforward_modules": []}),
}
PROJECTIONS = ("query", "key", "value")


def add_adapter(module: nn.Module, kind: str, **options: Any) -> None:
    """Put adapters into the model's projections and freeze everything else; the output does not change.

    Args:
        module: A model, or any module that contains one.
        kind: A key of :data:`KINDS`.
        options: Arguments of peft's configuration class, such as ``r``.

    Raises:
        BeftError: If peft does not know an option.
    """
    import peft

    name, defaults = KINDS[kind]
    model = pretrained_model(module)
    owners = bias_owners(model)
    projections = {id(owner) for term in PROJECTIONS for owner in owners[term].values()}
    targets = [path for path, child in model.named_modules() if id(child) in projections]
    try:
        config = getattr(peft, f"{name}Config")(**{"target_modules": targets, **defaults, **options})
    except TypeError as error:
        raise BeftError(f"tune_options of {kind!r}: {error}; see the arguments of peft.{name}Config.") from error
    # Puts the adapters in place. (peft's `inject_adapter_in_model` does the same, but refuses VeRA.)
    getattr(peft, f"{name}Model")(model, config, "default")
    # Adapters are created in the precision of what they adapt, and train in fp32.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
