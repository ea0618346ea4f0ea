"""End other commands than ``fit`` at random moments with ``tests.kill_loop --command``, and run them again.

A command that is run again after it was killed has to leave what one leaves that nothing ended.
"""

import argparse
import json
import random
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file

from tests import kill_loop
from tests.kill_loop import finish, prepare, start, tiny
from tests.kill_results import damaged, newest

COMMANDS = ("score", "compare", "export", "predict")
#: Entries of results that differ between two runs of the same command.
_MEASURED = ("seconds", "memory", "time")


def arguments_of(command: str, folder: Path, out: Path) -> list[str]:
    """Return the arguments of a command that writes into ``out``."""
    checkpoint = newest(folder / "fitted")
    parts = {
        "score": [*tiny(folder, out / "root"), f"--out={out}"],
        "compare": [*tiny(folder, out / "root", epochs=1), "--tune=[value,head]", "--seeds=[0,1]", f"--out={out}"],
        "export": [f"--checkpoint={checkpoint}", "--format=hf", f"--out={out}"],
        "predict": [f"--ckpt_path={checkpoint}", f"--input={folder / 'new.txt'}", f"--out={out / 'predictions.jsonl'}"],
    }
    return [command, *parts[command]]


def results(out: Path) -> dict[str, Any]:
    """Return what files hold that a command is for, without what is measured anew each time."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = str(path.relative_to(out))
        if name.startswith("root"):
            continue
        if path.suffix == ".json":
            found[name] = _lasting(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        else:
            found[name] = path.stat().st_size > 0
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not any(word in k for word in _MEASURED)}
    return [_lasting(entry) for entry in value] if isinstance(value, list) else value


def run_command(options: argparse.Namespace) -> dict[str, int]:
    """End a command as often as asked for.

    Args:
        options: See :func:`tests.kill_loop.main`.

    Returns:
        How often each thing went wrong, and ``ended``: how many commands had not finished by themselves.
    """
    draw, number = random.Random(options.seed), signal.Signals[options.signal]
    counts = dict.fromkeys(("damaged", "hung", "failed again", "different", "temporary", "ended"), 0)
    with TemporaryDirectory(dir=options.out) as name:
        folder = Path(name)
        prepare(folder)
        (folder / "new.txt").write_text("the film was good\nthe plot was bad\n")
        fitted = ["fit", *tiny(folder, folder / "fitted", epochs=1)]
        assert finish([start(fitted, folder / "fitted", {})]) == [0], (folder / "fitted-0.log").read_text()
        kill_loop.set_steps(1)  # so that nothing waits for a first step
        begin = time.monotonic()
        codes = finish([start(arguments_of(options.command, folder, folder / "whole"), folder / "whole", {})])
        duration = time.monotonic() - begin
        assert codes == [0], (folder / "whole-0.log").read_text()
        whole = results(folder / "whole")
        for place in range(options.moments):
            out = folder / f"out{place}"
            arguments = arguments_of(options.command, folder, out)
            process = start(arguments, out, {})
            moment = draw.uniform(options.begin, options.end)
            process.join(duration * moment)
            ended = process.is_alive()
            if ended:
                process.kill() if number == signal.SIGKILL else process.terminate()
            codes = finish([process], options.timeout)
            bad = damaged(out)
            complete = not bad and results(out) == whole
            again = [0] if complete else finish([start(arguments, out, {})], options.timeout)
            same = results(out) == whole
            left = [path.name for path in folder.rglob(".beft-unfinished-*")]
            counts["ended"] += ended
            counts["damaged"] += bool(bad)
            counts["hung"] += None in codes or None in again
            counts["failed again"] += again != [0]
            counts["different"] += not same
            counts["temporary"] += bool(left) and not complete
            print(
                f"{number.name} at {moment:.2f} of {duration:.1f} s: codes {codes}, complete {complete}, again {again}"
                f", same {same}, damaged: {bad or 'nothing'}, left: {left or 'nothing'}",
                flush=True,
            )
            if again != [0]:
                print(Path(f"{out}-0.log").read_text()[-1500:])
    return counts
