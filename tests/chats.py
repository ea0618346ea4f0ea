"""A tiny language model for chats, whose tokens give texts back as they are."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.tiny import WORDS, make_model

SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[END]"]
CHAT_VOCABULARY = [*SPECIAL, " ", "\n", "system:", "user:", "assistant:", *WORDS]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '[END]\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def chat_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A tokenizer of words, spaces and line breaks. Its chat template ends messages with ``[END]``, not its eos."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(CHAT_VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" |\n|[^ \n]+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        additional_special_tokens=["[END]"],
    )
    fast.chat_template = template
    return fast


def save_chat_backbone(folder: Path, template: str | None = TEMPLATE) -> str:
    """Save a tiny LLaMA with :func:`chat_tokenizer`, as a folder that ``from_pretrained`` reads."""
    vocabulary, end = len(CHAT_VOCABULARY), CHAT_VOCABULARY.index("[EOS]")
    make_model("llama", causal=True, vocab_size=vocabulary, eos_token_id=end).save_pretrained(folder)
    chat_tokenizer(template).save_pretrained(folder)
    return str(folder)


def conversation(*contents: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
