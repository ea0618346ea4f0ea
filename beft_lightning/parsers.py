"""The commands, and the parsers of those that have no configuration."""

import argparse
from pathlib import Path
from typing import NoReturn

from beft_lightning.errors import BeftError

SUBCOMMANDS = {
    "fit": "Choose a bias term, train it, validate.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the split that results are reported on.",
    "predict": "Predict new texts (--input), or write predictions.tsv of the data of a configuration.",
    "score": "Only score the bias terms, and write the scores to a folder.",
    "compare": "Train with several methods, each with several seeds, and write one table.",
    "plan": "Print what a fit will train, store and send, before any weights are loaded.",
    "download": "Fetch backbone and data into their caches, for machines without network.",
    "plot": "Draw the pictures of a fit's folder, or of a comparison's.",
    "export": "Write a checkpoint as a PEFT adapter, a plain folder of transformers, or a GGUF file.",
    "serve": "Serve a base with a folder of adapters over HTTP, with OpenAI's routes among others.",
}


class CommandParser(argparse.ArgumentParser):
    """A parser whose error is one message, not a page of usage before it."""

    def error(self, message: str) -> NoReturn:
        """Raise what the command line shows as one message."""
        raise BeftError(f"{message}. `{self.prog} --help` lists the options.")


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of ``export``, which has no configuration."""
    parser = CommandParser("python -m beft_lightning export", description=SUBCOMMANDS["export"], allow_abbrev=False)
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="checkpoint of a fit, for example checkpoints/last.ckpt, or folder of a BEFT adapter of PEFT; --adapter "
        "is another name of this option",
    )
    parser.add_argument(
        "--format",
        required=True,
        dest="form",
        choices=("peft", "hf", "gguf"),
        help="peft: an adapter beside the unchanged base; hf: the whole model with the trained values in it; gguf: the "
        "base's GGUF file with the trained biases in it, for llama.cpp",
    )
    parser.add_argument("--out", required=True, help="new folder for the result; with gguf, the new file")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="with hf, the precision to store (default: the one that the base had in the fit)",
    )
    parser.add_argument("--backbone", help="where the base is now, if it is not where the fit found it")
    parser.add_argument("--base_gguf", help="with gguf, the base as a GGUF file, if the fit's base was none")
    parser.add_argument(
        "--push", metavar="USER/NAME", help="repository of the Hugging Face hub to upload the result to"
    )
    return parser


def plot_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plot``, which has no configuration."""
    parser = CommandParser("python -m beft_lightning plot", description=SUBCOMMANDS["plot"], allow_abbrev=False)
    parser.add_argument(
        "--folder",
        required=True,
        type=Path,
        help="folder of a fit, with metrics.csv or scores.json, or that a comparison was written to; the pictures are "
        "written there",
    )
    return parser


def serve_parser() -> argparse.ArgumentParser:
    """Return the parser of ``serve``, which has no configuration."""
    parser = CommandParser("python -m beft_lightning serve", description=SUBCOMMANDS["serve"], allow_abbrev=False)
    parser.add_argument("--base", required=True, help="backbone: hub id, folder, or pkg://PACKAGE/FOLDER")
    parser.add_argument("--gguf_file", help="name of the GGUF file in the base that holds the weights")
    parser.add_argument("--adapters", required=True, help="folder of NAME.ckpt files and of folders that PEFT reads")
    parser.add_argument(
        "--host", default="127.0.0.1", choices=("127.0.0.1", "0.0.0.0", "::"), help="address to listen at"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="precision of the base's weights (default: %(default)s)")
    parser.add_argument(
        "--accelerator", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="where to compute"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="most requests in a batch (default: %(default)s)")
    parser.add_argument("--max_queue", type=int, default=256, help="most requests at a time (default: %(default)s)")
    parser.add_argument("--max_tokens", type=int, default=1024, help="most tokens to generate (default: %(default)s)")
    parser.add_argument("--max_bytes", type=int, default=1 << 20, help="largest body (default: %(default)s)")
    return parser


def predicts_new_texts(arguments: list[str]) -> bool:
    """Return whether a command line is ``predict`` with an input of its own, which has no configuration."""
    return arguments[0] == "predict" and any(option.partition("=")[0] == "--input" for option in arguments)


def predict_parser() -> argparse.ArgumentParser:
    """Return the parser of ``predict`` for new texts."""
    parser = CommandParser("python -m beft_lightning predict", description="Predict new inputs.", allow_abbrev=False)
    parser.add_argument(
        "--ckpt_path",
        required=True,
        help="checkpoint of a fit, for example checkpoints/last.ckpt, or a folder that export has written; --adapter "
        "is another name of this option",
    )
    parser.add_argument(
        "--input",
        required=True,
        help="CSV, TSV, JSON, JSONL, Parquet or Arrow file with the columns of the fit, an original file of its "
        "benchmark, a .txt file with a text in each line, or - for such lines from the standard input; for images "
        "and sounds a folder of files, or a table of paths",
    )
    parser.add_argument("--out", default="predictions.jsonl", help="file to write (default: %(default)s)")
    parser.add_argument("--submission", help="folder for the official file of predictions of a GLUE or SuperGLUE task")
    parser.add_argument("--batch_size", type=int, default=64, help="most rows in a batch (default: %(default)s)")
    parser.add_argument("--backbone", help="where the base is now, if it is not where the fit found it")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: an accelerator if there is one)")
    return parser
