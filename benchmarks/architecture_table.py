"""What was proved for each model type of transformers, as the page of the docs."""

import re
import textwrap
from dataclasses import dataclass

from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES


@dataclass
class Row:
    """What works with a model type.

    Args:
        model_type: Its name in transformers.
        found: Terms whose biases change that input of attention alone.
        scored: Whether each of them gets a finite score, and all but inert ones a positive one.
        trained: Whether ten steps on each term change it and nothing else.
        exported: Whether transformers reads the model with trained values from a folder, and computes the same.
        reason: Why something does not work.
        parts: Names of the models in it that were watched alone; empty if the whole was watched.
    """

    model_type: str
    found: tuple[str, ...] = ()
    scored: bool = False
    trained: bool = False
    exported: bool = False
    reason: str = ""
    parts: tuple[str, ...] = ()


def page(rows: list[Row]) -> str:
    """Return the page of the docs about the rows."""
    rows = sorted(rows, key=lambda row: row.model_type)
    built = [row for row in rows if "cannot be built" not in row.reason]
    none = [row for row in built if "no attention was seen in a forward pass" in row.reason]
    attended = [row for row in built if row not in none]
    found = [row for row in attended if row.found]
    counts = {
        "found": len(found),
        "scored": sum(row.scored for row in found),
        "trained": sum(row.trained for row in found),
        "exported": sum(row.exported for row in found),
    }
    lines = [
        *_HEADER,
        f"Of the {len(MODEL_MAPPING_NAMES)} types, {len(rows)} were tried. {len(built)} of these can be "
        f"built from their default configuration, and in "
        f"{len(none)} of these no attention was seen. Of the other {len(attended)}, the terms are "
        f"{', '.join(f'**{name}** in {count}' for name, count in counts.items())}.",
        "",
        "| type | found | scored | trained | exported |",
        "|---|---|---|---|---|",
        *(
            f"| `{row.model_type}` | {_found(row)} | {_mark(row.scored)} | {_mark(row.trained)} | "
            f"{_mark(row.exported)} |"
            for row in found
        ),
        "",
        "## Not found",
        "",
        "Each of these is refused with an error that says why, and how to write a mapping, which works for any model.",
        "",
        "| type | reason |",
        "|---|---|",
        *(f"| `{row.model_type}` | {_short(row.reason)} |" for row in attended if not row.found),
        "",
        "No attention was seen in " + ", ".join(f"`{row.model_type}`" for row in none) + ".",
        "",
        "The default configuration builds no model of "
        + ", ".join(f"`{row.model_type}`" for row in rows if row not in built)
        + ".",
        "",
    ]
    return "\n".join(lines)


_HEADER = (
    "# Architectures",
    "",
    "Which types of transformers work, proved on a small twin of each type's default model by",
    "`python -m benchmarks.architectures --rows rows.jsonl`, then the same with `--out docs/architectures.md`.",
    "",
    "- **found**: each of these biases, changed in the first or last layer, changes that input of the next attention,",
    "  and no other. This is observed where attention is computed, without a look at layers, names or gradients.",
    "  Types whose layers have names that speak against what was seen count as not found. Where the made-up inputs do",
    "  not reach all of a composed model, the models in it are watched and proved alone; the table names them.",
    "- **scored**: all of them get finite scores, and all but key biases, which may be inert, positive ones.",
    "- **trained**: ten steps on each of these terms change it, unless it is an inert key, and no other parameter.",
    "  Where both say no, some bias did not move: in the narrow twins of GLPN and MobileViT, which were looked at,",
    "  the gradients of query biases are exactly 0.",
    "- **exported**: transformers reads the model with trained value biases from a folder, and computes the same.",
    "  Of composed models that are not run as a whole, it reads every value.",
    "  Where a bias was added that the configuration has no place for, the format `peft` remains.",
    "",
)


def _found(row: Row) -> str:
    terms = ", ".join(row.found)
    return f"{terms}; in {', '.join(f'`{name}`' for name in row.parts)}" if row.parts else terms


def _mark(works: bool) -> str:
    return "yes" if works else "no"


#: Patterns of reasons -> how the page says them; ``{}`` stands for what a pattern's group holds.
_PLAIN = (
    (r"no attention was seen in '([^']+)'", "no attention was seen in `{}`"),
    (r"the same place as projections of attention, such as '([^']+)'", "no attention takes what `{}` computes"),
    (
        r"\d+ layers with the name of a query were not seen in attention, such as '([^']+)'",
        "`{}` was not seen in attention",
    ),
    (
        r"\d+ layers with the name of a query were not seen",
        "some layers with the name of a query were not seen in attention",
    ),
    (r"a small twin would have ([\d,]+) parameters", "a small twin has {} parameters, more than are run"),
    (
        r"missing \d+ required positional arguments?: (.+?)(?:; |\)|$)",
        "the inputs that are made up lack {}",
    ),
    (r"missing \d+ required", "the inputs that are made up do not fit"),
    (r"no layer computes ([\w, ]+) alone", "no layer computes {} alone"),
    (r"the (\w+) seems to come from '([^']+)'", "{} seems to come from `{}`"),
    (r"one layer is (\w+) and (\w+)", "one layer is seen as {} and {}"),
    (r"attentions share the layer '([^']+)'", "two attentions take `{}` as different terms"),
    (r"(\w+)\.\d+ changes \[(.+?)\] of an attention", "a change of {} alone changes {}"),
    (r"not done within|TimeoutError", "not done within 60 seconds of CPU time"),
    (r"none takes query, key or value from layers", "its projections are tensors, not layers"),
    (
        r"not a multiple of 4|split_with_sizes|in_channels must be|Validation error|"
        r"`per_layer_config`|Target sizes",
        "its configuration does not allow the sizes of a twin",
    ),
    (
        r"Input language unknown|visual_feats|cannot be multiplied|must match the size|Input must be|has no attribute|"
        r"no inputs are known|multiple of 1920|shape '|unexpected keyword|watch its attention \(\)|KeyError|topk",
        "the inputs that are made up do not fit",
    ),
)


def _short(reason: str) -> str:
    """Return in plain words what went wrong first."""
    matches = [(match, plain) for pattern, plain in _PLAIN if (match := re.search(pattern, reason))]
    if not matches:
        return textwrap.shorten(reason.partition("; ")[0].replace("|", "/"), 110, placeholder=" ...")
    match, plain = min(matches, key=lambda one: one[0].start())
    return plain.format(*match.groups()).replace("|", "/").replace("'", "")
