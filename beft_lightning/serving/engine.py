"""Answers of one base and its adapters to a batch of requests of any kind."""

import json
import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, PreTrainedTokenizerBase

from beft_lightning.checkpoint import MODEL_KEY
from beft_lightning.data.chat_template import render, turn_end
from beft_lightning.data.packed_options import EncodedOptions, plain_tokens
from beft_lightning.errors import BeftError, CheckpointError, DataError
from beft_lightning.export.loading import read_fit
from beft_lightning.export.peft import ADAPTER_CONFIG, TASK_TYPES
from beft_lightning.export.peft_source import is_adapter
from beft_lightning.models import load_config, load_model, load_tokenizer, usable_positions
from beft_lightning.predictor import is_finite
from beft_lightning.serving.bank import AdapterBank
from beft_lightning.serving.generation import Piece, Prompt, generate_pieces
from beft_lightning.serving.predictions import BankPredictor
from beft_lightning.serving.requests import BASE_NAME, ChatBody, CompletionBody
from beft_lightning.serving.sampling import FAILED

CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
_BY_TASK_TYPE = {task: auto_class for auto_class, task in TASK_TYPES.items()}
_log = logging.getLogger(__name__)
#: An answer to a request, or a part of one, in plain types; None where there is nothing new.
Answer = dict[str, Any]
_NOT_FINITE: Answer = {"error": "the adapter computes values that are not finite; train it anew.", "status": 500}


class Engine:
    """A base, its adapters by the head that they need, and the answers to requests.

    Args:
        backbone: The base.
        gguf_file: Name of the GGUF file in it that holds the weights.
        dtype: Precision of the weights; see :func:`~beft_lightning.models.load_model`.
        device: Where to compute.
        max_tokens: Most tokens that a request may ask for.
    """

    def __init__(
        self,
        backbone: str,
        gguf_file: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        max_tokens: int = 1024,
    ) -> None:
        self._base: dict[str, Any] = {"backbone": backbone, "gguf_file": gguf_file, "dtype": dtype}
        self._device = device
        self._max_tokens = max_tokens
        self.tokenizer = load_tokenizer(backbone, gguf_file)
        config = type(load_config(backbone, gguf_file))
        self._generates = config in MODEL_FOR_CAUSAL_LM_MAPPING and config not in MODEL_FOR_MASKED_LM_MAPPING
        self._predictors: dict[str, BankPredictor] = {}
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()
        first = self._predictor(CAUSAL if self._generates else CLASSIFIER)
        self._ends = _ends(self.tokenizer, first.bank.model.generation_config) if self._generates else []

    def add(self, name: str, path: Path) -> None:
        """Add an adapter to the bank with its head.

        Raises:
            BeftError: If it cannot be served over this base.
        """
        auto_class = head_of(path)
        if auto_class not in (CAUSAL, CLASSIFIER) or (auto_class == CAUSAL and not self._generates):
            raise CheckpointError(f"{path.name}: an adapter of {auto_class}, which is not served over this base.")
        bank = self._predictor(auto_class).bank
        bank.add(name, path)
        if self._places.get(name, auto_class) != auto_class:
            self._predictors[self._places[name]].bank.remove(name)
        self._places[name] = auto_class

    def remove(self, name: str) -> None:
        """Remove an adapter."""
        self._predictors[self._places.pop(name)].bank.remove(name)

    def _predictor(self, auto_class: str) -> BankPredictor:
        """Return the bank with a head; it is loaded when an adapter needs it first."""
        with self._lock:
            if auto_class not in self._predictors:
                head: dict[str, Any] = {"num_labels": 2} if auto_class == CLASSIFIER else {}
                model = load_model(getattr(transformers, auto_class), **self._base, **head)
                model.to(self._device)  # type: ignore[arg-type]
                if model.config.pad_token_id is None:  # classifiers over decoders look for the last token before it
                    model.config.pad_token_id = self.tokenizer.pad_token_id
                self._predictors[auto_class] = BankPredictor(AdapterBank(model), self.tokenizer)
            return self._predictors[auto_class]

    def answers(self, requests: Sequence[tuple[str, Any]]) -> Generator[list[Answer | None], None, None]:
        """Answer a batch of requests.

        Args:
            requests: The route of each, such as ``classify``, and its body.

        Yields:
            For each request, what is new: ``{"error": ..., "status": ...}``, ``{"result": ...}``, or a piece of text
            with ``text``, ``tokens``, ``prompt_tokens`` and ``finish_reason``, of which the last has a reason.
        """
        answers: list[Answer | None] = [None] * len(requests)
        prepared: dict[str, dict[int, Any]] = {"classify": {}, "score": {}, "text": {}}
        for place, (route, body) in enumerate(requests):
            try:
                kind, value = self._prepare(route, body)
            except Exception as error:  # whatever it is, it is not the other requests'
                answers[place] = _error(error)
            else:
                prepared[kind][place] = value
        for place, result in {**self._classified(prepared["classify"]), **self._scored(prepared["score"])}.items():
            answers[place] = {"result": result} if is_finite(result) else _NOT_FINITE
        yield answers
        if prepared["text"]:
            yield from self._texts(prepared["text"], len(requests))

    def _prepare(self, route: str, body: Any) -> tuple[str, Any]:
        """Check a request and encode it; an error is that of this request alone."""
        adapter = None if body.model == BASE_NAME else body.model
        if adapter is not None and adapter not in self._places:
            raise UnknownAdapterError(adapter, list(self._places))
        if route == "classify":
            if adapter is None:
                raise DataError("the base has no labels: name an adapter.")
            place = self._places[adapter]
            return "classify", (place, self._predictors[place].encode(adapter, body.inputs))
        if not self._generates or (adapter is not None and self._places[adapter] != CAUSAL):
            raise DataError(f"{body.model!r} is no language model: ask /v1/classify.")
        if route == "score":
            return "score", (adapter, self._predictors[CAUSAL].encode_score(body.prompt, body.options), body.options)
        return "text", self._prompt(adapter, body)

    def _prompt(self, adapter: str | None, body: ChatBody | CompletionBody) -> Prompt:
        if isinstance(body, ChatBody):
            messages = [message.model_dump() for message in body.messages]
            text = render(self.tokenizer, messages, to_answer=True)
            tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            tokens = plain_tokens(self.tokenizer, body.prompt)
        if not tokens:
            raise DataError("the prompt is empty.")
        limit = usable_positions(self._predictors[CAUSAL].bank.model)
        left = self._max_tokens if limit is None else limit - len(tokens)
        wanted = body.wanted if body.wanted is not None else max(1, min(left, self._max_tokens))
        if wanted > self._max_tokens:
            raise DataError(f"max_tokens {wanted} is more than the {self._max_tokens} that this server allows.")
        if wanted > left:
            raise DataError(
                f"{len(tokens)} tokens of the prompt and {wanted} to generate exceed the model's {limit} positions."
            )
        return Prompt(adapter, tuple(tokens), body.sampling(wanted))

    def _classified(self, requests: Mapping[int, tuple[str, list[dict[str, Any]]]]) -> dict[int, Any]:
        results: dict[int, Any] = {}
        for auto_class in dict.fromkeys(auto_class for auto_class, _ in requests.values()):
            chosen = {place: features for place, (own, features) in requests.items() if own == auto_class}
            rows = iter(self._predictors[auto_class].predict([one for features in chosen.values() for one in features]))
            results |= {place: [next(rows) for _ in features] for place, features in chosen.items()}
        return results

    def _scored(
        self, requests: Mapping[int, tuple[str | None, Sequence[EncodedOptions], Sequence[str]]]
    ) -> dict[int, Any]:
        if not requests:
            return {}
        scores = self._predictors[CAUSAL].score([(adapter, encoded) for adapter, encoded, _ in requests.values()])
        return {
            place: list(map(_score, options, of_one))
            for (place, (*_, options)), of_one in zip(requests.items(), scores, strict=True)
        }

    def _texts(self, prompts: Mapping[int, Prompt], count: int) -> Generator[list[Answer | None], None, None]:
        bank, places = self._predictors[CAUSAL].bank, list(prompts)
        for step in generate_pieces(bank, self.tokenizer, list(prompts.values()), self._ends):
            answers: list[Answer | None] = [None] * count
            for place, piece in zip(places, step, strict=True):
                if piece is not None:
                    answers[place] = _piece(piece, len(prompts[place].tokens))
            yield answers


class UnknownAdapterError(BeftError):
    """A request names an adapter that is not served."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        shown = ", ".join([BASE_NAME, *sorted(known)][:50])
        super().__init__(f"no adapter {name!r} is served; there are: {shown}{', ...' if len(known) > 49 else ''}.")


def head_of(path: Path) -> str:
    """Return the class of transformers that an adapter was trained under.

    Args:
        path: A checkpoint of a fit, a file or a folder; or a folder in PEFT's format.

    Raises:
        CheckpointError: If it does not say.
    """
    if is_adapter(path):
        try:
            task = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("task_type")
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path.name}: not a readable {ADAPTER_CONFIG} ({error}).") from error
        if task not in _BY_TASK_TYPE:
            raise CheckpointError(f"{path.name}: task_type {task!r} in {ADAPTER_CONFIG} names no known head.")
        return _BY_TASK_TYPE[task]
    return str(read_fit(path)[MODEL_KEY]["auto_class"])


def _ends(tokenizer: PreTrainedTokenizerBase, generation_config: Any) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's, the model's, and that of a turn of a chat."""
    configured = getattr(generation_config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    if tokenizer.chat_template is not None:
        try:
            ends.add(turn_end(tokenizer))
        except Exception as error:  # whatever a template raises, texts end without it
            _log.warning("no token of the chat template ends answers: %s", error)
    return sorted(ends - {None})


def _error(error: Exception) -> Answer:
    if not isinstance(error, BeftError):
        _log.error("a request has failed", exc_info=error)
        return {"error": "the request has failed; the log says why.", "status": 500}
    return {"error": str(error), "status": 404 if isinstance(error, UnknownAdapterError) else 400}


def _score(option: str, score: tuple[float, int]) -> Answer:
    log_probability, tokens = score
    return {"option": option, "logprob": log_probability, "tokens": tokens, "mean": log_probability / tokens}


def _piece(piece: Piece, prompt_tokens: int) -> Answer:
    if piece.finish_reason == FAILED:
        return _NOT_FINITE
    return {
        "text": piece.text,
        "tokens": piece.tokens,
        "prompt_tokens": prompt_tokens,
        "finish_reason": piece.finish_reason,
    }
