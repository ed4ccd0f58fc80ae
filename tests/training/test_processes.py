import logging
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.support.processes import wait_until
from training.processes import several, side_by_side

logger = logging.getLogger("training.sums")
# a process that starts two more, each of which says who it is and then waits longer than any test
STARTS = """
import os, sys, time
from training.processes import side_by_side

def wait(number):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    side_by_side(wait, [1, 2], 1)
"""


def tell(number: int) -> tuple[int, int, int]:
    logger.info("number %d", number)
    return number, os.getpid(), torch.get_num_threads()


def refuse(number: int) -> int:
    if number == 2:
        raise ValueError(f"not {number}")
    return number


def test_each_job_has_a_process_and_what_they_log_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "training"):
        found = side_by_side(tell, [3, 1, 2], 1)
    assert [number for number, _, _ in found] == [3, 1, 2]
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {1}
    assert sorted(record.getMessage() for record in caplog.records) == ["number 1", "number 2", "number 3"]


def test_a_few_processes_may_share_many_jobs() -> None:
    with several(2, 1) as each:
        found = [list(each(tell, list(range(first, first + 4)))) for first in (0, 4)]
    assert [[number for number, _, _ in some] for some in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert 1 <= len({process for some in found for _, process, _ in some}) <= 2


def test_what_one_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="not 2"):
        side_by_side(refuse, [1, 2], 1)


def killed(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_that_is_killed_is_an_error_in_words() -> None:
    with pytest.raises(ChildProcessError, match="want of memory"):
        side_by_side(killed, [1, 2], 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_end_with_the_one_that_started_them(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        started = [int(starter.stdout.readline()) for _ in range(2)]
        starter.send_signal(how)
        starter.wait(60)
        wait_until(lambda: not any(map(alive, started)))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
