"""Tiny models, tokenizers and data that tests build for themselves."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAccuracy
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

WORDS = "a the film was is story plot good great fine bad dull poor and but not very it of with".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
LAYERS = 3
WIDTH = 32

_ENCODER = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
_GROUPED = {**_ENCODER, "num_key_value_heads": 2}
_HEAD_DIM = {**_GROUPED, "head_dim": 8}
_GPT2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4}
_BLOOM = {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4}
_FALCON = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
_T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": LAYERS, "num_heads": 4, "decoder_start_token_id": 0}
_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "bloom": _BLOOM,
    "deberta-v2": _ENCODER,
    "distilbert": {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 48},
    "electra": {**_ENCODER, "embedding_size": WIDTH},
    "falcon": {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma": _HEAD_DIM,
    "gemma2": {**_HEAD_DIM, "query_pre_attn_scalar": 8},
    "gpt2": _GPT2,
    "gpt_neo": {
        "hidden_size": WIDTH,
        "num_layers": LAYERS,
        "num_heads": 4,
        "attention_types": [[["global", "local", "global"], 1]],
    },
    "gpt_neox": _ENCODER,
    "gptj": {**_GPT2, "rotary_dim": 4},
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "mixtral": {**_GROUPED, "num_local_experts": 2},
    "olmo2": _GROUPED,
    "opt": {
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "ffn_dim": 48,
    },
    "phi": _GROUPED,
    "phi3": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _HEAD_DIM,
    "roberta": _ENCODER,
    "t5": _T5,
    "xlm-roberta": _ENCODER,
}
MODEL_TYPES = sorted(_CONFIGS)
# With the usual range, the effect of positions on so small a model is next to nothing.
_RELATIVE = {"relative_attention": True, "share_att_key": True, "initializer_range": 0.2}
#: Further forms of a type, where its configuration decides what a term is or does.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v2 relative": (
        "deberta-v2",
        {**_RELATIVE, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4},
    ),
    "deberta-v2 c2p": ("deberta-v2", {**_RELATIVE, "pos_att_type": ["c2p"]}),
    "falcon alibi": (
        "falcon",
        {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4, "alibi": True, "bias": True},
    ),
    "falcon biased": ("falcon", {"bias": True}),
    "falcon multi-query": ("falcon", {"new_decoder_architecture": False, "parallel_attn": True}),
    "falcon sequential": ("falcon", {"new_decoder_architecture": False, "parallel_attn": False, "bias": True}),
    "t5 gated": ("t5", {"feed_forward_proj": "gated-gelu"}),
}
MODEL_FORMS = [*MODEL_TYPES, *_VARIANTS]


def make_model(model_type: str, *, causal: bool = False, biases: bool = True, **options: Any) -> PreTrainedModel:
    """A tiny model with random weights and, where it has biases, random ones that scores can be relative to.

    ``model_type`` is one of ``MODEL_FORMS``.
    """
    model_type, variant = _VARIANTS.get(model_type, (model_type, {}))
    shape = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64, "pad_token_id": 0}
    shape |= {**_CONFIGS[model_type], **variant}
    if model_type == "llama":
        shape["attention_bias"] = biases
    config = AutoConfig.for_model(model_type, **{**shape, **options})
    torch.manual_seed(0)
    auto_class = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    model: PreTrainedModel = auto_class.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)
    return model.train()


def token_ids(model: PreTrainedModel) -> Tensor:
    """Two made-up inputs for ``model``, shape ``(2, tokens)``."""
    ids = torch.arange(4, 14).view(2, 5)
    # T5's classification head reads the token that ends the input.
    return nn.functional.pad(ids, (0, 1), value=1) if model.config.is_encoder_decoder else ids


def save_backbone(
    folder: Path, model_type: str = "bert", *, headed: bool = False, causal: bool = False, **options: Any
) -> str:
    """Save a tiny model and its word-level tokenizer, as a folder that ``from_pretrained`` reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    model = make_model(model_type, causal=causal, eos_token_id=VOCABULARY.index("[SEP]"), **options)
    base = model.base_model
    assert isinstance(base, PreTrainedModel)
    (model if headed or causal else base).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A" if causal else "[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=["input_ids", *(["token_type_ids"] if model_type == "bert" else []), "attention_mask"],
    ).save_pretrained(folder)
    return str(folder)


def sentences(count: int, seed: int = 0) -> list[tuple[str, int]]:
    """Made-up sentences of 3 to 9 words with labels that depend on a word."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(3, 10, (1,), generator=generator))
        picked = [WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=generator).tolist()]
        made.append((" ".join(picked), int("good" in picked or "great" in picked or "fine" in picked)))
    return made


def write_sst2(folder: Path, train: int = 48, validation: int = 20) -> str:
    """Made-up sentences in the original format of SST-2 below ``folder``."""
    task = folder / "glue" / "sst2"
    task.mkdir(parents=True)
    for name, count, seed in (("train", train, 0), ("validation", validation, 1)):
        lines = [f"{text}\t{label}" for text, label in sentences(count, seed)]
        (task / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    return str(folder)


class ForeignModule(LightningModule):
    """Somebody else's LightningModule: knows nothing of this package, logs, and keeps a metric and a buffer."""

    running: Tensor

    def __init__(self, model_type: str = "bert", learning_rate: float = 1e-3, **options: Any) -> None:
        super().__init__()
        self.net = make_model(model_type, **options)
        self.extra = nn.Linear(2, 2)
        self.accuracy = BinaryAccuracy()
        self.register_buffer("running", torch.zeros(()))
        self.learning_rate = learning_rate
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        ids, labels = batch
        logits = self.extra(self.net(input_ids=ids).logits)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        self.running.add_(1)
        self.log("loss", loss)
        self.log("acc", self.accuracy(logits.argmax(-1), labels))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


def token_batches(examples: int = 32, batch_size: int = 4, **options: Any) -> DataLoader[Any]:
    """A shuffled loader of random token ids; its order comes from the global random number generator."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, len(VOCABULARY), (examples, 8), generator=generator)
    labels = (ids == VOCABULARY.index("good")).any(dim=1).long()
    return DataLoader(TensorDataset(ids, labels), batch_size=batch_size, shuffle=True, **options)


@torch.no_grad()
def logits(model: nn.Module | None, vocabulary: int = len(VOCABULARY)) -> Tensor:
    """What a model says of two sentences, one of them padded on the right, at its real tokens."""
    assert model is not None
    ids = torch.randint(4, vocabulary, (2, 9), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    output: Tensor = model.eval()(input_ids=ids, attention_mask=mask).logits
    return output[mask.bool()] if output.dim() == 3 else output
