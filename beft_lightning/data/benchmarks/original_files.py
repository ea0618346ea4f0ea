"""Objects of the benchmarks' original files as rows, one for each example; rows of the hub pass as they are."""

from collections.abc import Iterator, Mapping
from typing import Any

from beft_lightning.data.sources import Row
from beft_lightning.errors import DataError


def flatten_wsc(row: Row) -> Iterator[Row]:
    """Yield a row of WSC with its two spans side by side, as on the hub; the original file nests them."""
    yield {**row, **row.get("target", {})}


def flatten_multirc(row: Row) -> Iterator[Row]:
    """Yield a row for each answer to judge of a passage of MultiRC."""
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


def flatten_record(row: Row) -> Iterator[Row]:
    """Yield a row for each query of a passage of ReCoRD."""
    if "qas" not in row:  # as on the hub: one query a row
        yield row
        return
    text = row["passage"]["text"]
    # The end of a span is its last character.
    entities = [text[entity["start"] : entity["end"] + 1] for entity in row["passage"]["entities"]]
    for qa in row["qas"]:
        answers = [answer["text"] for answer in qa["answers"]]
        yield {"passage": text, "query": qa["query"], "entities": entities, "answers": answers}


def flatten_squad(article: Row) -> Iterator[Row]:
    """Yield a row for each question of an article of SQuAD.

    Raises:
        DataError: If an answer is not where the file says it is.
    """
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


def flatten_drop(passage: Row) -> Iterator[Row]:
    """Yield a row for each question of a passage of DROP."""
    if "qa_pairs" not in passage:  # as on the hub: one question a row
        spans = passage["answers_spans"]["spans"]
        yield {**passage, "answers": [spans]}
        return
    for qa in passage["qa_pairs"]:
        answers = [spans for a in (qa["answer"], *qa.get("validated_answers", [])) if (spans := drop_spans(a))]
        yield {"passage": passage["passage"], "question": qa["question"], "answers": answers}


def drop_spans(answer: Mapping[str, Any]) -> list[str]:
    """Return a DROP answer as its spans: a number, the spans themselves, or a date; empty if the record is."""
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return list(answer["spans"])
    date = answer.get("date") or {}
    text = " ".join(date[part] for part in ("day", "month", "year") if date.get(part))
    return [text] if text else []
