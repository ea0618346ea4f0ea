"""Frozen weights are told from others, whatever holds them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from beft_lightning.checksums import tensor_checksum
from beft_lightning.errors import CheckpointError
from beft_lightning.fingerprint import check_fingerprint, fingerprint, is_identity
from beft_lightning.models import load_model
from tests.tiny import make_model, save_backbone


def samples(identity: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A fingerprint as the first version made it: the precision and four values of each tensor."""
    return {name: values[:5] for name, values in identity.items()}


def test_any_single_change_is_found() -> None:
    """Four samples of each tensor missed 199 changed weights."""
    model = make_model("bert")
    before = fingerprint(model)
    for name, parameter in model.named_parameters():
        place = len(parameter.view(-1)) // 3  # between the samples
        with torch.no_grad():
            kept = parameter.view(-1)[place].clone()
            parameter.view(-1)[place] = torch.nextafter(kept, torch.tensor(9.0))
            with pytest.raises(CheckpointError, match=f"its frozen {name!r} differs"):
                check_fingerprint(before, fingerprint(model), set())
            parameter.view(-1)[place] = kept
    check_fingerprint(before, fingerprint(model), set())


def test_swapped_rows_are_found() -> None:
    model = make_model("bert")
    before = fingerprint(model)
    weight = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    weight.data = weight.data[[1, 0, *range(2, len(weight))]]
    with pytest.raises(CheckpointError, match="output.dense"):
        check_fingerprint(before, fingerprint(model), set())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_weights_in_another_precision_pass_and_others_do_not(dtype: torch.dtype) -> None:
    saved, half = fingerprint(make_model("bert")), make_model("bert", dtype=dtype)
    assert half.dtype == dtype
    check_fingerprint(saved, fingerprint(half), set())
    check_fingerprint(fingerprint(half), saved, set())
    other = make_model("bert", dtype=dtype)
    with torch.no_grad():
        other.get_parameter("bert.encoder.layer.1.output.dense.weight").mul_(1.05)
    with pytest.raises(CheckpointError, match="same shape: its frozen 'bert.encoder.layer.1.output.dense.weight'"):
        check_fingerprint(saved, fingerprint(other), set())


def test_biases_that_are_fp32_in_both_precisions_were_rounded_with_the_weights(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "opt", causal=True)
    whole, half = (load_model(AutoModelForCausalLM, folder, dtype=dtype) for dtype in ("float32", "bfloat16"))
    bias = "model.decoder.layers.0.fc1.bias"
    assert half.get_parameter(bias).dtype == torch.float32
    assert not torch.equal(half.get_parameter(bias), whole.get_parameter(bias))
    check_fingerprint(fingerprint(whole), fingerprint(half), set())
    with torch.no_grad():
        half.get_parameter(bias).mul_(1.01)
    with pytest.raises(CheckpointError, match=f"its frozen '{bias}' differs"):
        check_fingerprint(fingerprint(whole), fingerprint(half), set())


@pytest.mark.parametrize(("one", "other"), [("float32", "bfloat16"), ("float32", "float16"), ("float16", "bfloat16")])
def test_a_nearly_equal_model_in_another_precision_is_told(one: str, other: str) -> None:
    """As one that was trained a little further."""
    first, second = (make_model("bert").to(getattr(torch, dtype)) for dtype in (one, other))
    check_fingerprint(fingerprint(first), fingerprint(second), set())
    check_fingerprint(fingerprint(second), fingerprint(first), set())
    torch.manual_seed(0)
    further = make_model("bert")
    for parameter in further.parameters():
        parameter.data *= 1 + 0.02 * torch.rand_like(parameter)
    with pytest.raises(CheckpointError, match="of the same shape"):
        check_fingerprint(fingerprint(first), fingerprint(further.to(getattr(torch, other))), set())


def test_quantized_weights_and_others_cannot_be_compared() -> None:
    codes, values = ({"a": [f"torch.{dtype}", 1.0, 2.0, 3.0, 4.0, "sum"]} for dtype in ("uint8", "float32"))
    with pytest.raises(CheckpointError, match="over 'a' in nf4, and this model has it in float32.*dtype='nf4'"):
        check_fingerprint(codes, values, set())


def test_fingerprints_of_the_first_version_are_checked_by_their_samples() -> None:
    model = make_model("bert")
    saved = samples(fingerprint(model))
    check_fingerprint(saved, fingerprint(model), set())
    check_fingerprint(saved, fingerprint(make_model("bert").bfloat16()), set())
    weight = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    with torch.no_grad():
        weight.view(-1)[1] += 1  # between the samples: this is what the first version did not see
        check_fingerprint(saved, fingerprint(model), set())
        weight.view(-1)[-1] += 1
    with pytest.raises(CheckpointError, match="output.dense"):
        check_fingerprint(saved, fingerprint(model), set())


def test_tensors_of_any_size_have_a_fingerprint() -> None:
    """Above 2^24 elements, places computed in fp32 would round beyond the end."""
    large = nn.ParameterDict({"a": nn.Parameter(torch.zeros(1).expand(49152 * 576), requires_grad=False)})
    assert fingerprint(large)["a"][:5] == ["torch.float32", 0.0, 0.0, 0.0, 0.0]
    small = nn.ParameterDict({"a": nn.Parameter(torch.tensor([3.0]), requires_grad=False)})
    assert fingerprint(small) == {"a": ["torch.float32", 3.0, 3.0, 3.0, 3.0, tensor_checksum(torch.tensor([3.0]))]}


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_quantized_weights_have_a_fingerprint(dtype: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "opt", causal=True)
    model = load_model(AutoModelForCausalLM, folder, dtype=dtype)
    before = fingerprint(model)
    check_fingerprint(before, fingerprint(load_model(AutoModelForCausalLM, folder, dtype=dtype)), set())
    name = "model.decoder.layers.1.self_attn.k_proj.weight"
    assert not model.get_parameter(name).is_floating_point()
    model.get_parameter(name).data.view(-1)[7:207] += 1
    with pytest.raises(CheckpointError, match=name):
        check_fingerprint(before, fingerprint(model), set())


def test_a_rare_other_code_of_a_quantized_weight_passes() -> None:
    """Kernels of processors and GPUs round a few of a million values differently; another model differs in most."""
    codes = torch.randint(0, 255, (1000, 1000), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other = codes.clone()
    other.view(-1)[500:510] += 1

    def identity(values: torch.Tensor) -> dict[str, list[Any]]:
        return fingerprint(nn.ParameterDict({"a": nn.Parameter(values, requires_grad=False)}))

    check_fingerprint(identity(codes), identity(other), set())
    other.view(-1)[500:1500] = 0
    with pytest.raises(CheckpointError, match="its frozen 'a' differs"):
        check_fingerprint(identity(codes), identity(other), set())


def test_a_fingerprint_has_its_form() -> None:
    for identity in (fingerprint(make_model("bert")), samples(fingerprint(make_model("bert")))):
        assert all(map(is_identity, identity.values()))
    for malformed in (None, [], ["torch.float32", 1.0], ["torch.float32", 1.0, 2.0, "3", 4.0], [0.0] * 5):
        assert not is_identity(malformed)
