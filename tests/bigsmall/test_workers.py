"""Work for several processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bigsmall.workers import each

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def test_every_job_is_done_once_in_other_processes_on_one_thread():
    found = list(each(where, [(n,) for n in range(5)], workers=2))
    assert sorted(n for n, _, _ in found) == list(range(5))
    assert os.getpid() not in {pid for _, pid, _ in found}
    assert {threads for _, _, threads in found} == {1}


def test_nothing_to_do():
    assert list(each(where, [], workers=2)) == []


def test_an_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(each(divmod, [(1, 1), (1, 0)], workers=1))


def where(n: int) -> tuple[int, int, int]:
    return n, os.getpid(), torch.get_num_threads()


# Each job waits until the other has begun too, in the other process.
SCRIPT = """
import os, sys, time
from bigsmall.workers import each
job = '''
import os, time
open("{name}", "w").write(str(os.getpid()))
while len(os.listdir()) < 2:
    time.sleep(0.01)
time.sleep({seconds})
'''
if __name__ == "__main__":
    os.chdir(sys.argv[1])
    list(each(exec, [(job.format(name=n, seconds=s),) for n, s in enumerate(eval(sys.argv[2]))], 2))
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [(60, 60), (0, 60)], ids=["both at work", "one waits for work"])
def test_the_workers_end_with_their_parent(tmp_path, number, seconds):
    script, folder = tmp_path / "script.py", tmp_path / "workers"
    script.write_text(SCRIPT)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(folder), repr(seconds)])
    wait(30, lambda: len(list(folder.iterdir())) == 2)
    time.sleep(1)  # one has nothing to do
    workers = {int(path.read_text()) for path in folder.iterdir()}
    assert len(workers) == 2
    assert all(map(runs, workers))
    parent.send_signal(number)
    parent.wait()
    wait(20, lambda: not any(map(runs, workers)))


def wait(seconds: float, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
