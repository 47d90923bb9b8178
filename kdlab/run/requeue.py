"""SLURM: a job that is about to run out of time asks to be put into the queue again."""

import logging
import os
import signal
import subprocess

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from kdlab.errors import UsageError

log = logging.getLogger(__name__)

REQUEUE_SIGNAL = signal.SIGUSR1  # what `#SBATCH --signal=USR1@120` sends, 120 seconds before the end


def under_slurm() -> bool:
    """Whether SLURM runs this process."""
    return "SLURM_JOB_ID" in os.environ


def slurm_environment() -> list[SLURMEnvironment]:
    """What tells Lightning its rank where `srun` starts the processes, for the plugins; none elsewhere.

    Without Lightning's own requeue: it writes a checkpoint in the middle of whatever the signal interrupts, elsewhere
    than in the run's folder.

    Raises:
        UsageError: if the job's tasks cannot be told apart.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        raise UsageError(" ".join(str(error).split())) from error


def requeue() -> None:
    """Put this job into the queue again; where that fails, say so."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{task}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        problem = done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        log.warning("job %s was not put into the queue again (%s); submit it once more: it continues", job, problem)
    else:
        log.warning("job %s is in the queue again", job)
