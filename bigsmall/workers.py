"""Work for several processes, which end with the one that began them, however that ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def each(work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int | None = None) -> Iterator[T]:
    """Call `work(*job)` for every job, each on one thread; yields what it returns, in the order in which they end.

    The first error is raised when the jobs that the workers have taken have ended; the others are not begun.

    Args:
        workers: how many new processes; None for one a core.
    """
    if not jobs:
        return
    pool = ProcessPoolExecutor(min(workers or os.cpu_count() or 1, len(jobs)), get_context("spawn"), _begin)
    try:
        for job in as_completed([pool.submit(work, *job) for job in jobs]):
            yield job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's affair: this process ends what it is at
    torch.set_num_threads(1)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """The pool's pipes stay open in the other workers, so that a parent that was killed is not missed there."""
    if parent := parent_process():
        parent.join()
        os._exit(1)
