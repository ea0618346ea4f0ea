"""The eleven prompted tasks of the paper: prompts, verbalizers and recommended values of the published runs.

A prompt is what the model reads; an option is appended to it as it stands. The wording is MeZO's (arXiv 2305.17333),
which the published runs use.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from beft_lightning.data.prompt_task import Prompted, PromptTask, Row
from beft_lightning.errors import DataError

_SUPER_GLUE = "aps/super_glue"


def _verbalized(
    prompt: Callable[[Row], str], words: tuple[str, ...], labels: tuple[str, ...], calibration: str = ""
) -> Callable[[Row], list[Prompted]]:
    """A classification task whose options are words, one for each label."""

    def examples(row: Row) -> list[Prompted]:
        gold = _label(row["label"], labels)
        group, source = (str(row.get(name, "")) for name in ("group", "source"))
        return [Prompted(prompt(row), words, (gold,), calibration_prompt=calibration, group=group, source=source)]

    return examples


def _label(value: Any, labels: tuple[str, ...]) -> int:
    text = str(int(value)) if isinstance(value, bool | int) else str(value)
    if text in labels:
        return labels.index(text)
    if text.isdecimal() and int(text) < len(labels):
        return int(text)
    raise DataError(f"label {text!r} is outside the set {', '.join(labels)} (or 0 to {len(labels) - 1})")


_NO_YES = ("false", "true")


def _boolq_prompt(row: Row) -> str:
    question = row["question"] if row["question"].endswith("?") else f"{row['question']}?"
    return f"{row['passage']} {question[0].upper()}{question[1:]}\n"


def _flatten_wsc(row: Row) -> Iterator[Row]:
    # The original file nests the two spans; the hub's has them side by side.
    yield {**row, **row.get("target", {})}


def _flatten_multirc(row: Row) -> Iterator[Row]:
    if "paragraph" in row:  # as on the hub: one answer a row
        place = row["idx"]
        yield {**row, "group": f"{place['paragraph']}-{place['question']}", "source": place["paragraph"]}
        return
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": row["passage"]["text"],
                "question": question["question"],
                "answer": answer["text"],
                "label": answer["label"],
                "group": f"{row['idx']}-{question['idx']}",
                "source": row["idx"],
            }


def _copa_examples(row: Row) -> list[Prompted]:
    premise = row["premise"].strip().removesuffix(".")
    conjunction = {"effect": " so", "cause": " because"}[row["question"]]
    choices = tuple(_lower_first_word(row[name]) for name in ("choice1", "choice2"))
    options = tuple(f" {choice}" for choice in choices)
    gold = _label(row["label"], ("choice1", "choice2"))
    return [Prompted(premise + conjunction, options, (gold,), calibration_prompt=conjunction.strip())]


def _lower_first_word(text: str) -> str:
    first, space, rest = text.strip().partition(" ")
    return text.strip() if first == "I" else first.lower() + space + rest


def _flatten_record(row: Row) -> Iterator[Row]:
    if "qas" not in row:  # as on the hub: one query a row
        yield row
        return
    text = row["passage"]["text"]
    # The end of a span is its last character.
    entities = [text[entity["start"] : entity["end"] + 1] for entity in row["passage"]["entities"]]
    for qa in row["qas"]:
        answers = [answer["text"] for answer in qa["answers"]]
        yield {"passage": text, "query": qa["query"], "entities": entities, "answers": answers}


def _record_examples(row: Row) -> list[Prompted]:
    passage = row["passage"].replace("@highlight\n", "- ")
    entities = tuple(dict.fromkeys(row["entities"]))
    gold = tuple(i for i, entity in enumerate(entities) if entity in row["answers"])
    if not gold:
        raise DataError(f"no gold answer ({', '.join(row['answers']) or 'none given'}) among the entities")
    options = tuple(f" {row['query'].replace('@placeholder', entity)}" for entity in entities)
    answers = tuple((answer,) for answer in dict.fromkeys(row["answers"]))
    return [Prompted(f"{passage}\n-", options, gold, answers, entities, calibration_prompt="-")]


def _flatten_squad(article: Row) -> Iterator[Row]:
    if "paragraphs" not in article:  # as on the hub: one question a row
        yield article
        return
    for paragraph in article["paragraphs"]:
        for qa in paragraph["qas"]:
            texts = [answer["text"] for answer in qa["answers"]]
            for answer in qa["answers"]:
                begin = answer["answer_start"]
                if paragraph["context"][begin : begin + len(answer["text"])] != answer["text"]:
                    raise DataError(
                        f"question {qa['id']}: the answer {answer['text']!r} is not at {begin} in its context"
                    )
            title, question = article["title"], qa["question"]
            yield {"title": title, "context": paragraph["context"], "question": question, "answers": {"text": texts}}


def _squad_examples(row: Row) -> list[Prompted]:
    prompt = f"Title: {row['title']}\nContext: {row['context']}\nQuestion: {row['question'].strip()}\nAnswer:"
    texts = row["answers"]["text"]
    if not texts:
        raise DataError(f"the question {row['question']!r} has no answer")
    return [Prompted(prompt, (f" {texts[0]}\n",), answers=tuple((text,) for text in texts))]


def _flatten_drop(passage: Row) -> Iterator[Row]:
    if "qa_pairs" not in passage:  # as on the hub: one question a row
        spans = passage["answers_spans"]["spans"]
        yield {**passage, "answers": [spans]}
        return
    for qa in passage["qa_pairs"]:
        answers = [spans for a in (qa["answer"], *qa.get("validated_answers", [])) if (spans := drop_spans(a))]
        yield {"passage": passage["passage"], "question": qa["question"], "answers": answers}


def drop_spans(answer: Mapping[str, Any]) -> list[str]:
    """A DROP answer as its spans: a number, the spans themselves, or a date; empty if the record is."""
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return list(answer["spans"])
    date = answer.get("date") or {}
    text = " ".join(date[part] for part in ("day", "month", "year") if date.get(part))
    return [text] if text else []


def _drop_examples(row: Row) -> list[Prompted]:
    if not row["answers"]:
        raise DataError(f"the question {row['question']!r} has no answer")
    prompt = f"Passage: {row['passage']}\nQuestion: {row['question'].strip()}\nAnswer:"
    answers = tuple(tuple(spans) for spans in row["answers"])
    return [Prompted(prompt, (f" {answers[0][0]}\n",), answers=answers)]


#: Prompted tasks by name; learning rates are those of the published OPT runs, 5 epochs at an effective batch of 8.
PROMPT_TASKS: Mapping[str, PromptTask] = {
    task.name: task
    for task in (
        PromptTask(
            name="sst2",
            kind="choice",
            columns=("sentence", "label"),
            examples=_verbalized(
                lambda row: f"{row['sentence'].strip()} It was",
                (" terrible", " great"),
                ("negative", "positive"),
                calibration="It was",
            ),
            hub=("nyu-mll/glue", "sst2"),
        ),
        PromptTask(
            name="rte",
            kind="choice",
            columns=("premise", "hypothesis", "label"),
            examples=_verbalized(
                lambda row: f'{row["premise"]}\nDoes this mean that "{row["hypothesis"]}" is true? Yes or No?\n',
                ("Yes", "No"),
                ("entailment", "not_entailment"),
            ),
            hub=(_SUPER_GLUE, "rte"),
        ),
        PromptTask(
            name="cb",
            kind="choice",
            columns=("premise", "hypothesis", "label"),
            examples=_verbalized(
                lambda row: f'Suppose {row["premise"]} Can we infer that "{row["hypothesis"]}"? Yes, No, or Maybe?\n',
                ("Yes", "No", "Maybe"),
                ("entailment", "contradiction", "neutral"),
            ),
            metrics=("accuracy", "macro_f1"),
            labels=("entailment", "contradiction", "neutral"),
            learning_rate=1e-2,
            batch_size=1,
            hub=(_SUPER_GLUE, "cb"),
        ),
        PromptTask(
            name="boolq",
            kind="choice",
            columns=("passage", "question", "label"),
            examples=_verbalized(_boolq_prompt, ("No", "Yes"), _NO_YES),
            batch_size=4,
            hub=(_SUPER_GLUE, "boolq"),
        ),
        PromptTask(
            name="wsc",
            kind="choice",
            columns=("text", "span1_text", "span2_text", "label"),
            flatten=_flatten_wsc,
            examples=_verbalized(
                lambda row: (
                    f"{row['text']}\nIn the previous sentence, does the pronoun "
                    f'"{row["span2_text"].lower()}" refer to {row["span1_text"]}? Yes or No?\n'
                ),
                ("No", "Yes"),
                _NO_YES,
            ),
            learning_rate=1e-2,
            hub=(_SUPER_GLUE, "wsc.fixed"),
        ),
        PromptTask(
            name="wic",
            kind="choice",
            columns=("word", "sentence1", "sentence2", "label"),
            examples=_verbalized(
                lambda row: (
                    f'Does the word "{row["word"]}" have the same meaning in these two sentences? Yes, No?\n'
                    f"{row['sentence1']}\n{row['sentence2']}\n"
                ),
                ("No", "Yes"),
                _NO_YES,
            ),
            hub=(_SUPER_GLUE, "wic"),
        ),
        PromptTask(
            name="multirc",
            kind="choice",
            columns=("paragraph", "question", "answer", "label"),
            flatten=_flatten_multirc,
            examples=_verbalized(
                lambda row: (
                    f"{row['paragraph']}\nQuestion: {row['question']}\n"
                    f'I found this answer "{row["answer"]}". Is that correct? Yes or No?\n'
                ),
                ("No", "Yes"),
                _NO_YES,
            ),
            metrics=("accuracy", "f1a", "em"),
            batch_size=2,
            hub=(_SUPER_GLUE, "multirc"),
        ),
        PromptTask(
            name="copa",
            kind="choice",
            columns=("premise", "choice1", "choice2", "question", "label"),
            examples=_copa_examples,
            loss="lm",
            learning_rate=1e-4,
            hub=(_SUPER_GLUE, "copa"),
        ),
        PromptTask(
            name="record",
            kind="choice",
            columns=("passage", "query", "entities", "answers"),
            flatten=_flatten_record,
            examples=_record_examples,
            metrics=("accuracy", "answer_f1", "answer_em"),
            loss="lm",
            learning_rate=1e-4,
            batch_size=2,
            hub=(_SUPER_GLUE, "record"),
        ),
        PromptTask(
            name="squad",
            kind="generation",
            columns=("title", "context", "question", "answers"),
            flatten=_flatten_squad,
            examples=_squad_examples,
            metrics=("answer_f1", "answer_em"),
            loss="lm",
            batch_size=2,
            hub=("rajpurkar/squad", None),
        ),
        PromptTask(
            name="drop",
            kind="generation",
            columns=("passage", "question", "answers"),
            flatten=_flatten_drop,
            examples=_drop_examples,
            # The published runs report SQuAD's F1; DROP's own metric stands beside it.
            metrics=("answer_f1", "drop_f1", "drop_em"),
            loss="lm",
            batch_size=1,
            max_length=1536,
            hub=("ucinlp/drop", None),
        ),
    )
}
