"""End default fits of a tiny model at random moments, resume them, and compare with a fit that nothing ended.

Usage: ``python -m tests.kill_loop [--signal SIGKILL] [--moments 20] [--processes 1] [--workers 0] [--strategy NAME]
[--group] [--timeout 90] [--out FOLDER] [--seed 0] [--from 0] [--to 1.05]``, or with ``--command score`` for another
command than ``fit``, see :mod:`tests.kill_commands`. It prints a line for each moment and a table of what went wrong,
and returns 1 if anything did. Fits are forked from one process, as importing takes longer than fitting; two processes
get the environment that torchrun gives them.
With ``--group``, the signal goes to all processes and their data loaders' workers at once, as schedulers and terminals
send it. SIGUSR1 comes as SLURM sends it, into a job of SLURM's environment.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lightning.pytorch import Callback, Trainer

from beft_lightning import cli  # noqa: F401  # before forking
from beft_lightning.__main__ import main as command_line
from beft_lightning.checkpoint import read_checkpoint
from tests.kill_results import damaged, different, newest
from tests.tiny import save_backbone, write_sst2

ROOT = Path(__file__).parents[1]
_FORK = multiprocessing.get_context("fork")
#: Optimizer steps of the fit under way, told by its process.
_STEPS = _FORK.Value("i", 0)
EPOCHS = 8
STEPS_AN_EPOCH = 6
#: Seconds after which a process counts as hung.
TIMEOUT = 90.0
#: The part of a fit that the moments before the first step stand for.
LOADING = 0.3
#: The environment of a job of one process in SLURM.
SLURM = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "fit"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


class TellSteps(Callback):
    """Tells the process that watches how many steps are done, and takes a moment for each."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        _STEPS.value = trainer.global_step
        time.sleep(0.01)


def tiny(folder: Path, out: Path, processes: int = 1, workers: int = 0, epochs: int = EPOCHS) -> list[str]:
    """Return the arguments of a tiny run on what :func:`prepare` has written."""
    return [
        f"--model.backbone={folder / 'backbone'}",
        "--data=Glue",
        "--data.task=sst2",
        f"--data.data_dir={folder / 'data'}",
        f"--data.batch_size={8 // processes}",
        f"--data.num_workers={workers}",
        f"--trainer.max_epochs={epochs}",
        f"--trainer.default_root_dir={out}",
        "--trainer.enable_progress_bar=false",
        "--trainer.accelerator=cpu",
        f"--trainer.devices={processes}",
    ]


def prepare(folder: Path) -> None:
    """Write a backbone and a task."""
    (folder / "backbone").mkdir()
    save_backbone(folder / "backbone")
    write_sst2(folder / "data")


def fit(
    folder: Path, out: Path, processes: int, workers: int, strategy: str | None = None, *, slurm: bool = False
) -> Sequence[BaseProcess]:
    """Start a default fit that goes on from what is in ``out``, if anything is."""
    arguments = ["fit", *tiny(folder, out, processes, workers)]
    arguments += ["--trainer.callbacks=tests.kill_loop.TellSteps", "--ckpt_path=last-if-any"]
    if strategy is not None:
        arguments += [f"--config={ROOT / 'configs' / 'strategy' / strategy}.yaml"]
        for name in ("FSDP", "DeepSpeed"):
            if f".{name}Strategy" in Path(arguments[-1].removeprefix("--config=")).read_text():
                arguments.append(f"--trainer.strategy.class_path=tests.strategies.cpu_strategies.CPU{name}Strategy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _STEPS.value = 0
    environment = SLURM if slurm else {}
    return [start(arguments, out, environment | torchrun(rank, processes, port)) for rank in range(processes)]


def start(arguments: list[str], out: Path, environment: Mapping[str, str]) -> BaseProcess:
    """Start a command in a process that writes what it says beside ``out``."""
    process = _FORK.Process(target=_run, args=(arguments, out, environment))
    process.start()
    return process


def torchrun(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return what torchrun sets for one of several processes."""
    if processes == 1:
        return {}
    size = str(processes)
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "kill_loop",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
    }


def _run(arguments: list[str], out: Path, environment: Mapping[str, str]) -> None:
    os.setpgid(0, 0)  # a group of its own, with its workers
    torch.set_num_threads(1)
    log = os.open(f"{out}-{environment.get('RANK', 0)}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["beft_lightning"]
    os.environ |= environment
    sys.exit(command_line(arguments))


def finish(started: Sequence[BaseProcess], timeout: float = TIMEOUT) -> list[int | None]:
    """Wait for the processes; the exit code of one that hangs, and is killed, is None.

    Where one has failed and another waits for it to begin with training, the other is told to end, as torchrun does.
    """
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in started) and time.monotonic() < end:
        if not _STEPS.value and any(process.exitcode for process in started):
            for process in started:
                process.join(5)
                if process.is_alive():
                    process.terminate()
        time.sleep(0.01)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
    return codes


def set_steps(steps: int) -> None:
    """Note how many steps are done where no fit tells."""
    _STEPS.value = steps


def wait_for(moment: float, loading: float, started: Sequence[BaseProcess]) -> None:
    """Wait for a moment of a fit, of which the first 30 % are loading and the others training.

    Args:
        moment: From 0 to 1, and up to what comes after the last step.
        loading: Seconds from the start to the first step.
        started: The fit's processes.
    """
    if moment < LOADING:
        time.sleep(loading * moment / LOADING)
        return
    steps = (moment - LOADING) / (1 - LOADING) * EPOCHS * STEPS_AN_EPOCH
    while _STEPS.value < int(steps) and all(process.is_alive() for process in started):
        time.sleep(0.001)
    time.sleep(0.03 * (steps % 1))


def run(options: argparse.Namespace) -> dict[str, int]:
    """End as many fits as asked for.

    Args:
        options: See :func:`main`.

    Returns:
        How often each thing went wrong, and ``saved``: how many fits left a checkpoint.
    """
    number, processes, workers = signal.Signals[options.signal], options.processes, options.workers
    draw = random.Random(options.seed)
    counts = dict.fromkeys(
        ("lost", "damaged", "hung", "wrong code", "not resumed", "different", "temporary", "saved", "ended"), 0
    )
    slurm = number == signal.SIGUSR1
    start_fit = partial(fit, processes=processes, workers=workers, strategy=options.strategy, slurm=slurm)
    with TemporaryDirectory(dir=options.out) as name:
        folder = Path(name)
        prepare(folder)
        begin = time.monotonic()
        started = start_fit(folder, folder / "whole")
        while not _STEPS.value and started[0].is_alive():
            time.sleep(0.001)
        loading = time.monotonic() - begin
        codes = finish(started)
        whole = newest(folder / "whole")
        assert codes == [0] * processes, (folder / "whole-0.log").read_text()
        assert whole is not None
        for place in range(options.moments):
            out = folder / f"out{place}"
            started = start_fit(folder, out)
            moment = draw.uniform(options.begin, options.end)
            wait_for(moment, loading, started)
            to_all = options.group or number == signal.SIGKILL
            targets = started if to_all else [started[draw.randrange(processes)]]
            ended = any(process.is_alive() for process in targets)
            for process in targets:
                if process.is_alive():
                    assert process.pid is not None
                    (os.killpg if options.group else os.kill)(process.pid, number)
            codes = finish(started, options.timeout)
            steps, kept = _STEPS.value, newest(out)
            bad, temporary = damaged(out), [path for path in out.rglob(".*") if path.is_file()]
            held = read_checkpoint(kept)["global_step"] if kept and not bad else 0
            allowed = STEPS_AN_EPOCH if number == signal.SIGKILL else 0
            expected = {-number} if number == signal.SIGKILL else {128 + number, -number}
            resumed = finish(start_fit(folder, out), options.timeout)
            again = newest(out)
            differs = different(read_checkpoint(whole), read_checkpoint(again)) if again is not None else ["nothing"]
            counts["ended"] += ended
            counts["saved"] += kept is not None
            counts["lost"] += steps - held > allowed
            counts["damaged"] += bool(bad)
            # Nobody can clean up after SIGKILL.
            counts["temporary"] += bool(temporary)
            counts["hung"] += None in codes or None in resumed
            if steps == 0 and processes > 1:
                expected.add(2)  # It has lost contact with the other process.
            if steps == EPOCHS * STEPS_AN_EPOCH:
                expected.add(0)  # The signal came in the last validation or later.
            counts["wrong code"] += ended and not set(codes) <= expected
            counts["not resumed"] += resumed != [0] * processes
            counts["different"] += bool(differs)
            print(
                f"{number.name} at {moment:.2f}, {steps} steps: codes {codes}, {held} steps saved, resumed "
                f"{resumed}, different: {differs or 'nothing'}, damaged: {bad or 'nothing'}",
                flush=True,
            )
            if os.environ.get("SHOW") and (differs or None in codes or resumed != [0] * processes):
                print((folder / f"out{place}-0.log").read_text()[-3000:])
    return counts


def main() -> int:
    from tests.kill_commands import COMMANDS, run_command

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="SIGKILL", choices=("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"))
    parser.add_argument("--command", default="fit", choices=("fit", *COMMANDS))
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--strategy", help="the name of a file in configs/strategy")
    parser.add_argument("--group", action="store_true", help="send the signal to all processes, workers included")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds to wait (default: %(default)g)")
    parser.add_argument("--out", help="where to write; by default below TMPDIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=float, default=0.0, dest="begin", help="earliest moment, a part of the fit")
    parser.add_argument("--to", type=float, default=1.05, dest="end", help="latest moment")
    options = parser.parse_args()
    counts = run(options) if options.command == "fit" else run_command(options)
    print(json.dumps(counts))
    harmless = {"saved", "ended"} | ({"temporary"} if options.signal == "SIGKILL" else set())
    return int(any(count for name, count in counts.items() if name not in harmless))


if __name__ == "__main__":
    # The callback that Lightning imports by its name shall be the one of the module that runs.
    from tests import kill_loop

    sys.exit(kill_loop.main())
