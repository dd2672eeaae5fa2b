"""Work for several processes."""

import os
import signal
import subprocess
import sys
import time
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


SCRIPT = """
import os, time
from bigsmall.workers import each
if __name__ == "__main__":
    jobs = [("import os, time; print(os.getpid(), flush=True); time.sleep(60 * %d)" % n,) for n in {lasting}]
    list(each(exec, jobs, 2))
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("lasting", [(1, 1), (0, 1)], ids=["both at work", "one waits for work"])
def test_the_workers_end_with_their_parent(tmp_path, number, lasting):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(lasting=lasting))
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        workers = {int(parent.stdout.readline()) for _ in lasting}
        assert Path(f"/proc/{max(workers)}").exists()
        os.kill(parent.pid, number)
        end = time.monotonic() + 20
        while left := {worker for worker in workers if Path(f"/proc/{worker}").exists()}:
            assert time.monotonic() < end, f"{left} still run"
            time.sleep(0.02)
