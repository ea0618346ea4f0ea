"""Signals and requeueing of SLURM jobs."""

import os
import subprocess

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from beft_lightning.strategies.internals.lightning import cluster_environment


def slurm_environment(trainer: Trainer) -> SLURMEnvironment | None:
    """Return the SLURM environment that a trainer runs in, if any."""
    environment = cluster_environment(trainer)
    return environment if isinstance(environment, SLURMEnvironment) else None


def requeue_job() -> None:
    """Ask SLURM to put this process's job back into its queue."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"SLURM did not requeue job {job}: {error}. Submit it again to go on.")
    else:
        rank_zero_info(f"SLURM has requeued job {job}.")
