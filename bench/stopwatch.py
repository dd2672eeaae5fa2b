"""Where the time goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stopwatch:
    """Wall time by stage; what a stage spends in other stages counts for those."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] += spent - self._inner.pop()
            self._inner[-1] += spent

    def watched(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls timed."""

        def call(*args: Any, **options: Any) -> Any:
            with self(stage):
                return function(*args, **options)

        return call

    def iterated(self, stage: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The generator function, every step timed."""

        def generate(*args: Any, **options: Any) -> Iterator[Any]:
            items = function(*args, **options)
            while True:
                with self(stage):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item

        return generate
