"""Run jobs: some at a time on this machine, each with a GPU of its own, or each as a job of a SLURM cluster."""

import os
import pickle
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch

from das3r_ns.evaluation.bench.worker import results_folder
from das3r_ns.files.json_files import write_json
from das3r_ns.runtime.shared_cores import available_cores

LOG = "log.txt"


@runtime_checkable
class AnyJob(Protocol):
    """What is run: it can be pickled, and has a folder of its own."""

    @property
    def out(self) -> Path:
        """Folder of the job."""
        ...


JobT = TypeVar("JobT", bound=AnyJob)


def run_here(jobs: Sequence[JobT], at_a_time: int, done: Callable[[JobT], None], worker: str) -> None:
    """Run every job in a process of its own.

    Args:
        worker: module that runs a pickled job from its standard input.
        at_a_time: how many run together. The GPUs of the machine are dealt out to them in turn.
        done: called, in this thread, after each job.
    """
    devices: queue.Queue[str | None] = queue.Queue()
    gpus = visible_gpus()
    for i in range(at_a_time):
        devices.put(gpus[i % len(gpus)] if gpus else None)
    running: set[subprocess.Popen[bytes]] = set()

    threads = max(1, available_cores() // at_a_time)

    def run(job: JobT) -> JobT:
        device = devices.get()
        try:
            _run_process(job, worker, device, threads, running)
        finally:
            devices.put(device)
        return job

    with ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list(running):
                process.terminate()
            raise


def _run_process(
    job: AnyJob, worker: str, device: str | None, threads: int, running: "set[subprocess.Popen[bytes]]"
) -> None:
    job.out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    for library in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # jobs share the cores
        environment.setdefault(library, str(threads))
    command = [sys.executable, "-m", worker]
    with (job.out / LOG).open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        running.add(process)
        try:
            process.communicate(pickle.dumps(job))
        finally:
            running.discard(process)
    if process.returncode != 0:
        # A signal (out of memory, most often) or an import that failed: the worker itself could write nothing.
        reason = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        hint = " (9 is what a machine out of memory sends)" if process.returncode == -9 else ""
        write_crash(job, f"the process ended with {reason}{hint}; see {job.out / LOG}")


def write_crash(job: AnyJob, reason: str) -> None:
    """Note that a job ended without saying why."""
    folder = results_folder(job.out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "crash.json", {"settings": {}, "error": reason, "time": time.time()})


def visible_gpus() -> list[str]:
    """Names by which the GPUs that this process may use are given to a child."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(torch.cuda.device_count())]


def run_on_cluster(
    jobs: Sequence[JobT],
    partition: str,
    hours: float,
    log: Path,
    done: Callable[[JobT], None],
    run_job: Callable[[JobT], None],
    cluster: str = "slurm",
    at_a_time: int = 1,
) -> None:
    """Run every job as one job of a SLURM partition, with one GPU, and wait for all.

    Args:
        cluster: submitit's name of the executor: `local` runs the jobs on this machine, for a trial.
        at_a_time: jobs that the local executor, which has no queue, is given together.

    Raises:
        ImportError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "--slurm-partition needs submitit: pip install 'das3r-ns[cluster]'. --jobs spreads sequences over the GPUs "
            "of one machine without it."
        ) from error
    executor = submitit.AutoExecutor(folder=log, cluster=cluster)
    executor.update_parameters(timeout_min=max(1, round(60 * hours)), name="das3r")
    if cluster == "slurm":
        executor.update_parameters(slurm_partition=partition, gpus_per_node=1, cpus_per_task=8, mem_gb=64)
    group = len(jobs) if cluster == "slurm" else at_a_time
    for first in range(0, len(jobs), max(group, 1)):
        part = list(jobs[first : first + group])
        for job, handle in zip(part, executor.map_array(run_job, part)):
            try:
                handle.result()
            except Exception as error:  # the cluster's, or the job's: a row that says why
                write_crash(job, f"{type(error).__name__}: {error}")
            done(job)
