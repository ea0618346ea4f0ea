"""Rows of a batch get what each adapter alone would give them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import pytest
import torch
from torch import Tensor

from beft_lightning.bias.precision import keep_fp32
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.export import export
from beft_lightning.serving import Adapter, AdapterBank
from tests.export.fits import CAUSAL, HEADED, SST2
from tests.serving.adapters import prompts, random_adapter, trained
from tests.tiny import LAYERS, WIDTH, make_model, save_backbone

COPA = PROMPT_TASKS["copa"]

#: Model type -> endings of the layers whose biases differ.
PLACES = {
    "opt": ("v_proj", "q_proj", "out_proj", "fc1", "fc2", "self_attn_layer_norm"),
    "gpt2": ("c_attn", "attn.c_proj", "c_fc", "ln_1"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"),
    "llama": ("v_proj", "k_proj", "down_proj"),
    "phi3": ("qkv_proj",),
    "falcon": ("query_key_value",),
    "bloom": ("query_key_value", "input_layernorm"),
    "mixtral": ("v_proj",),
}
ENCODERS = ("bert", "roberta", "deberta-v2", "distilbert", "electra")


def _bank(model_type: str, causal: bool = True) -> tuple[AdapterBank, list[str | None]]:
    bank = AdapterBank(make_model(model_type, causal=causal, **({"biases": False} if model_type == "llama" else {})))
    places = PLACES.get(model_type, ("value", "v_lin", "value_proj"))
    for seed, name in enumerate(("one", "two")):
        bank.add(name, random_adapter(bank.model, lambda path: path.endswith(places), seed))
    return bank, ["two", None, "one", "two"]


def _alone(bank: AdapterBank, name: str | None) -> Any:
    return bank.model if name is None else bank.alone(name)


@torch.no_grad()
def _check(bank: AdapterBank, rows: list[str | None]) -> None:
    batch = prompts()
    with bank.rows(rows) as model:
        together = model(**batch).logits
    plain = bank.model(**batch).logits
    for row, name in enumerate(rows):
        torch.testing.assert_close(together[row], _alone(bank, name)(**batch).logits[row], rtol=1e-5, atol=1e-6)
        assert name is None or (together[row] - plain[row]).abs().max() > 1e-4


@pytest.mark.parametrize("model_type", PLACES)
def test_each_row_gets_what_its_adapter_alone_gives(model_type: str) -> None:
    _check(*_bank(model_type))


@pytest.mark.parametrize("model_type", ENCODERS)
def test_encoders_too(model_type: str) -> None:
    _check(*_bank(model_type, causal=False))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
def test_generation_equals_each_adapter_alone(options: dict[str, Any]) -> None:
    bank, rows = _bank("llama")
    batch = prompts()
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, **options}
    returned = options.get("num_return_sequences", 1)
    together = bank.generate(rows, **batch, **settings).view(len(rows), returned, -1)
    assert len({tuple(row[0, 7:].tolist()) for row in together}) > 1
    for row, name in enumerate(rows):
        single = {key: value[row : row + 1] for key, value in batch.items()}
        alone = _alone(bank, name).generate(**single, **settings)
        width = min(alone.shape[1], together.shape[2])
        assert torch.equal(alone[:, :width], together[row, :, :width])


def test_layers_that_do_not_see_rows_are_refused() -> None:
    """DeBERTa puts its relative positions, one for all rows, through the layers of query and key."""
    bank = AdapterBank(make_model("deberta-v2 c2p", causal=False))
    adapter = random_adapter(bank.model, lambda path: path.endswith("key_proj"), 0)
    with pytest.raises(CheckpointError, match="cannot differ from row to row"):
        bank.add("one", adapter)
    assert bank.names == []
    assert bank.model(**prompts()).logits.isfinite().all()


@pytest.mark.parametrize(
    ("model_type", "places", "dtype"),
    [
        ("llama", ("v_proj", "down_proj"), torch.bfloat16),
        ("llama", ("v_proj",), torch.float16),
        ("opt", ("k_proj",), torch.bfloat16),  # without effect: what differs is rounding
        ("gpt2", ("c_attn", "ln_1"), torch.bfloat16),
    ],
)
def test_a_base_in_half_precision_gives_rows_their_adapters(
    model_type: str, places: tuple[str, ...], dtype: torch.dtype
) -> None:
    model: Any = make_model(model_type, causal=True)
    model.to(dtype)
    keep_fp32(model)  # as `load_model` does
    bank = AdapterBank(model)
    for seed, name in enumerate(("one", "two")):
        bank.add(name, random_adapter(model, lambda path: path.endswith(places), seed))
    batch, rows = prompts(3), ["two", None, "one"]
    with bank.rows(rows) as own:
        together = own(**batch).logits
    for row, adapter in enumerate(rows):
        with torch.autocast("cpu", dtype):
            alone = _alone(bank, adapter)(**batch).logits[row]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_whose_rows_are_those_of_others_are_refused(dtype: torch.dtype) -> None:
    model: Any = make_model("llama", causal=True)
    model.to(dtype)
    keep_fp32(model)
    model.get_submodule("model.layers.0.self_attn.o_proj").register_forward_pre_hook(lambda _, own: (own[0].flip(0),))
    bank = AdapterBank(model)
    with pytest.raises(CheckpointError, match="cannot differ from row to row"):
        bank.add("one", random_adapter(model, lambda path: path.endswith("layers.0.self_attn.v_proj"), 0))


def test_a_layer_that_could_not_be_tried_is_tried_anew() -> None:
    bank = AdapterBank(make_model("opt", causal=True))
    adapter = random_adapter(bank.model, lambda path: path.endswith("v_proj"), 0)
    broken = bank.model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bank.add("one", adapter)
    broken.remove()
    bank.add("one", adapter)
    _check(bank, ["one"] * 4)


def test_adapters_come_and_go_and_a_batch_that_has_begun_keeps_its_own() -> None:
    bank, rows = _bank("opt")
    batch = prompts()
    with torch.no_grad(), bank.rows(rows) as model:
        before = model(**batch).logits
        bank.remove("one")
        bank.add("two", random_adapter(bank.model, lambda path: path.endswith("v_proj"), 9))
        for seed in range(20):
            bank.add(f"more {seed}", random_adapter(bank.model, lambda path: path.endswith("v_proj"), seed))
        assert torch.equal(model(**batch).logits, before)
    assert "one" not in bank
    assert len(bank) == 21
    with pytest.raises(BeftError, match="no adapter 'one'; there are: 'two'"), bank.rows(["one"]):
        pass
    _check(bank, ["two", "more 19", None, "more 0"])


def test_threads_have_rows_of_their_own() -> None:
    bank, _ = _bank("opt")
    batch = prompts()
    expected = {name: _alone(bank, name)(**batch).logits for name in ("one", "two", None)}

    @torch.no_grad()
    def run(name: str | None) -> None:
        for _ in range(5):
            with bank.rows([name] * 4) as model:
                torch.testing.assert_close(model(**batch).logits, expected[name], rtol=0, atol=1e-5)

    with ThreadPoolExecutor(len(expected)) as threads:
        assert len(list(threads.map(run, expected))) == len(expected)


def test_adapters_are_added_from_another_thread_while_one_computes() -> None:
    """A pass stands still in its middle until new layers are hooked and an adapter of its own is replaced."""
    bank, rows = _bank("opt")
    batch = prompts()
    with torch.no_grad(), bank.rows(rows) as model:
        before = model(**batch).logits
    reached, added = Event(), Event()
    this = get_ident()

    def stop(*_: Any) -> None:
        if get_ident() != this:
            reached.set()
            assert added.wait(60)

    stopper = bank.model.get_submodule("model.decoder.layers.1").register_forward_pre_hook(stop)

    @torch.no_grad()
    def run() -> Tensor:
        with bank.rows(rows) as model:
            logits: Tensor = model(**batch).logits
        return logits

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run)
        assert reached.wait(60)
        try:
            bank.add("two", random_adapter(bank.model, lambda path: path.endswith(("v_proj", "final_layer_norm")), 9))
        finally:
            added.set()
        assert torch.equal(running.result(), before)
    stopper.remove()
    _check(bank, ["two", None, "one", "two"])


def test_another_number_of_rows_is_refused() -> None:
    bank, rows = _bank("opt")
    with pytest.raises(BeftError, match="4 rows, and 2 adapters"), bank.rows(rows[:2]) as model:
        model(**prompts())


def test_ten_thousand_adapters_take_the_memory_of_their_vectors() -> None:
    bank = AdapterBank(make_model("opt", causal=True))
    layer = "model.decoder.layers.0.self_attn.v_proj"
    for number in range(10_000):
        bank.add(str(number), Adapter({layer: torch.full((WIDTH,), number / 10_000)}))
    assert 10_000 * WIDTH * 4 <= bank.bytes <= 2 * 10_001 * WIDTH * 4
    _check(bank, ["9999", "5000", None, "9998"])


@pytest.mark.parametrize(
    ("model_type", "tune"), [("gpt2", "value"), ("llama", "value,mlp_out"), ("opt", "low_rank_bias")]
)
def test_checkpoints_and_peft_folders_give_what_was_trained(model_type: str, tune: str, tmp_path: Path) -> None:
    options = {"biases": False} if model_type == "llama" else {}
    backbone = save_backbone(tmp_path / "base", model_type, causal=True, **options)
    module = trained(backbone, COPA, tune, tmp_path / "a.ckpt")
    bank = AdapterBank(CAUSAL.from_pretrained(backbone))
    bank.add("fit", tmp_path / "a.ckpt")
    if model_type != "gpt2":
        from beft_lightning.export import export

        export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
        bank.add("peft", tmp_path / "out")
    assert module.model is not None
    batch = prompts(2)
    with torch.no_grad(), bank.rows(["fit", "peft" if "peft" in bank else "fit"]) as model:
        torch.testing.assert_close(model(**batch).logits, module.model(**batch).logits, rtol=1e-5, atol=2e-6)
    assert bank.adapter("fit").task is not None
    # The base is as it was.
    assert torch.equal(bank.model(**batch).logits, CAUSAL.from_pretrained(backbone).eval()(**batch).logits)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama"])
def test_heads_of_several_sizes_share_a_batch(model_type: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", model_type)
    fits = {}
    for seed, name in enumerate(("sst2", "mnli", "stsb")):
        fits[name] = trained(backbone, GLUE_TASKS[name], "value", tmp_path / f"{name}.ckpt", seed).model
    bank = AdapterBank(HEADED.from_pretrained(backbone, num_labels=2))
    for name in fits:
        bank.add(name, tmp_path / f"{name}.ckpt")
    rows = ["mnli", "stsb", "sst2", "mnli"]
    batch = prompts()
    with torch.no_grad(), bank.rows(rows) as model:
        together = model(**batch).logits
        assert together.shape == (4, 3)
        for row, name in enumerate(rows):
            alone = fits[name]
            assert alone is not None
            expected = alone(**batch).logits[row]
            torch.testing.assert_close(together[row, : len(expected)], expected, rtol=1e-5, atol=1e-6)
            merged = bank.alone(name)(**batch).logits[row]
            torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-6)


def test_an_adapter_of_another_base_or_width_is_refused(tmp_path: Path) -> None:
    here = save_backbone(tmp_path / "here", "opt", causal=True)
    bank = AdapterBank(CAUSAL.from_pretrained(here))
    other = save_backbone(tmp_path / "other", "opt", causal=True, initializer_range=0.5)
    wide = save_backbone(tmp_path / "wide", "opt", causal=True, hidden_size=2 * WIDTH, word_embed_proj_dim=2 * WIDTH)
    for backbone, problem in ((other, "its frozen .* differs"), (wide, "shape")):
        trained(backbone, COPA, "value", tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError, match=f"{Path(backbone).name}'; the base here is .*here.*{problem}"):
            bank.add("one", tmp_path / "a.ckpt")
    trained(other, COPA, "value", tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "adapter", "peft")  # of the same shapes, and without a fingerprint
    with pytest.raises(CheckpointError, match=r"an adapter of '.*other'; the base here is '.*here'.*correct"):
        bank.add("one", tmp_path / "adapter")
    with pytest.raises(
        CheckpointError, match=r"bias of 5 values for .*, and this base, .*here \(opt\), has 32 outputs"
    ):
        bank.add("one", Adapter({"model.decoder.layers.0.fc2": torch.zeros(5)}))
    with pytest.raises(CheckpointError, match="which in this base, .* is no linear layer"):
        bank.add("one", Adapter({f"model.decoder.layers.{LAYERS}.fc2": torch.zeros(5)}))
    assert bank.names == []


def test_trained_weights_are_refused(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "opt", causal=True)
    trained(backbone, COPA, "random_rows", tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="only biases and heads differ from row to row"):
        AdapterBank(CAUSAL.from_pretrained(backbone)).add("one", tmp_path / "a.ckpt")


def test_whole_models_are_refused_with_what_to_serve_instead(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "opt", causal=True)
    module = trained(backbone, COPA, "value", tmp_path / "a.ckpt")
    bank = AdapterBank(CAUSAL.from_pretrained(backbone))
    export(tmp_path / "a.ckpt", tmp_path / "whole", "hf")
    with pytest.raises(CheckpointError, match=r"whole has no adapter_config.json: it is a whole model.*format 'peft'"):
        bank.add("one", tmp_path / "whole")
    torch.save({"state_dict": module.state_dict()}, tmp_path / "full.ckpt")
    with pytest.raises(CheckpointError, match=r"full.ckpt: a full checkpoint.*that AdapterCheckpoint wrote"):
        bank.add("one", tmp_path / "full.ckpt")
    assert not bank.names


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    bank = AdapterBank(make_model("opt", causal=True))
    (tmp_path / "a.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        bank.add("one", tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        bank.add("one", tmp_path / "b.ckpt")


def test_labels_are_those_of_the_fit(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "bert")
    trained(backbone, SST2, "value", tmp_path / "a.ckpt")
    bank = AdapterBank(HEADED.from_pretrained(backbone, num_labels=2))
    bank.add("one", tmp_path / "a.ckpt")
    task = bank.adapter("one").task
    assert task is not None
    assert task.labels == SST2.labels
