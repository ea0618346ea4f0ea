"""Run the study, or as much of it as fits into some hours, and report.

    BEFT_DATA_DIR=DATA OMP_NUM_THREADS=1 python -m benchmarks.selection --out OUT [--hours 3] [--workers 2]

Each way is swept over learning rates with the first seed, judged on development examples, until its best rate is not
at the edge; then it is trained with the other seeds at that rate. Every run is evaluated on test examples after each
epoch. Each run and each setting's scores leave a JSON file in ``--out``: started again, the study goes on where it
stopped. The runs so far are in ``benchmarks/selection/runs``: a copy as ``--out`` goes on from there. Settings are
done in the order of their table, each to its end. ``--report`` writes the tables of what is there, and runs nothing.
"""

import argparse
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.digits import Study as Digits
from benchmarks.selection.jobs import run_job
from benchmarks.selection.report import write_report
from benchmarks.selection.settings import KNOWN_DIGITS, SEEDS, SETTINGS
from benchmarks.selection.study import Study


def main() -> None:
    """Run the study."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.selection", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--hours", type=float, default=3.0, help="start no job after this time (default: 3)")
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time, one thread each (default: 2)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS], help="default: all")
    parser.add_argument("--ways", nargs="+", default=[], help="what to train (default: all terms and combinations)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*SEEDS], help="seeds of the reported runs")
    parser.add_argument("--report", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    study = Study(arguments.out, tuple(arguments.seeds), tuple(arguments.ways))
    if not arguments.report:
        run(study, arguments.settings, time.monotonic() + 3600 * arguments.hours, arguments.workers)
    path = write_report(study, " ".join(["python -m benchmarks.selection", *sys.argv[1:]]))
    print(f"report: {path}" if path else "no setting is complete yet: run the same command again to go on")


def run(study: Study, names: list[str], end: float, workers: int) -> None:
    """Run the waiting jobs of the settings in their order, until the time is up.

    Args:
        study: The study.
        names: The settings.
        end: When to start no further job, in the monotonic clock's seconds.
        workers: Number of jobs at a time.
    """
    for folder, known in KNOWN_DIGITS.items():
        if f"vit_{folder}" in names:
            Digits(study.folder / folder, known=known)
    # Fresh processes, so that each has its own threads and generators.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[float], dict[str, Any]] = {}
        for name in names:
            while True:
                waiting = [job for job in study.waiting(SETTINGS[name]) if job not in running.values()]
                while waiting and len(running) < workers and time.monotonic() < end:
                    job = waiting.pop(0)
                    running[pool.submit(run_job, job, str(study.path(job)))] = job
                if not any(job["setting"] == name for job in running.values()):
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    print(f"{running.pop(future)}: {future.result():.0f} s", flush=True)


if __name__ == "__main__":
    main()
