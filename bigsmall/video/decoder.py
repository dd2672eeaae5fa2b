"""The parent's side of the child process that decodes, so that a file can neither crash, nor hang, nor fill this one.

A child is started at the first need (0.2 s) and takes one reading after another; between two it waits, at most one of
them. It is a plain subprocess: it works in threads, in daemonic workers, in notebooks, and in scripts that have no
`if __name__ == "__main__"`. It ends with the reading that was broken off, with this process, and without it. Its frames
come through memory that has no name, so that nothing can be left behind. POSIX only.
"""

from __future__ import annotations

import atexit
import json
import math
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from typing import Any, NoReturn

import numpy as np

from .limits import Limits

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from bigsmall.video.decoding import main; main(*map(int, sys.argv[2:]))"
)
# one thread for numpy, and few arenas: what the memory limit counts is then pictures
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

START = 60.0  # seconds until a new child says that it is there; apart from the limit, whose clock starts with the order


class DecoderLostError(Exception):
    """The child crashed, hung or ran out of its memory; says which."""


class Decoder:
    """A child process that decodes files, one reading at a time."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._memory = _nameless()
        self._owner, self.ready = os.getpid(), True
        descriptors = [theirs.fileno(), self._memory]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, json.dumps(sys.path), *map(str, descriptors), str(self._owner)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=descriptors, env=os.environ | ENVIRONMENT,
            )  # fmt: skip
        except BaseException:
            self._connection.close()
            os.close(self._memory)
            raise
        finally:
            theirs.close()
        try:
            self._receive(START)
        except BaseException:
            self.stop()
            raise

    @property
    def usable(self) -> bool:
        """Whether it waits for an order."""
        return self.ready and self._owner == os.getpid() and self._process.poll() is None

    def read(
        self, paths: list[str], *, folder: bool, head: bool, limits: Limits
    ) -> Generator[tuple[dict[str, Any], np.ndarray | None]]:
        """The child's messages (see `bigsmall.video.decoding`), frames with their own copy of the pixels.

        Raises:
            DecoderLostError: the child did not come to an end by itself.
        """
        self.ready = False
        order = {"paths": paths, "folder": folder, "head": head, "memory": limits.memory, "pixels": limits.pixels}
        self._send(json.dumps(order).encode())
        ring, turn = np.empty(0, np.uint8), 0
        while True:
            message = self._receive(limits.seconds)
            rgb = None
            if "frame" in message:
                rgb = ring[turn % len(ring)].copy()
                turn += 1
                self._send(b"")
            elif "head" in message:
                ring = self._ring(message["head"])
            elif "lost" in message:
                raise DecoderLostError(message["lost"])  # what little memory it has left is not used again
            else:
                self.ready = True
                os.ftruncate(self._memory, 0)
                yield message, None
                return
            yield message, rgb

    def _ring(self, head: dict[str, Any]) -> np.ndarray:
        shape = (head["slots"], head["height"], head["width"], 3)
        if not head["slots"]:
            return np.empty(shape, np.uint8)
        return np.frombuffer(mmap.mmap(self._memory, math.prod(shape), prot=mmap.PROT_READ), np.uint8).reshape(shape)

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            self._lost()

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            if not self._connection.poll(seconds):
                raise DecoderLostError(f"the decoder gave no frame for {seconds:g} s")
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
            return message
        except (EOFError, OSError):
            self._lost()

    def _lost(self) -> NoReturn:
        code = self._process.wait(10)
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        raise DecoderLostError(f"the decoder {ended}")

    def stop(self) -> None:
        """End the child and free what it shares. In a forked copy of this process: only the copies."""
        if self._owner == os.getpid():
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # one that hangs on a lost network drive cannot be ended
                self._process.wait(10)
        self._connection.close()
        os.close(self._memory)


def _nameless() -> int:
    """The descriptor of a memory file without a name: the system frees it with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("bigsmall")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_waiting: list[Decoder] = []


@contextmanager
def decoder() -> Iterator[Decoder]:
    """A child to read with: the one that waits, else a new one. Afterwards it waits, if its reading came to its end."""
    try:
        child = _waiting.pop()
        if not child.usable:
            child.stop()
            child = Decoder()
    except IndexError:
        child = Decoder()
    try:
        yield child
    finally:
        if child.usable and not _waiting:
            _waiting.append(child)
        else:
            child.stop()


@atexit.register
def _end() -> None:
    while _waiting:
        _waiting.pop().stop()
