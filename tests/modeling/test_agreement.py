"""The processes of a run wait for each other, share work, and end together."""

import time

import pytest
import torch.distributed as dist
from joined_processes import in_processes

from open_r1.common.errors import UserError
from open_r1.modeling.agreement import in_all_processes, on_first_process, share_of_this_process

pytestmark = pytest.mark.slow


def test_other_processes_wait_longer_than_their_time_limit() -> None:
    def work() -> str:
        time.sleep(5)
        return "done"

    assert in_processes(lambda: on_first_process(work), seconds=2) == ["done", None]


def test_a_process_with_much_work_is_waited_for() -> None:
    def work() -> int:
        time.sleep(5 * dist.get_rank())
        return dist.get_rank()

    assert in_processes(lambda: in_all_processes(work), seconds=2) == [[0, 1], [0, 1]]


def test_an_unexpected_error_is_raised_where_it_happened_and_ends_the_others() -> None:
    def work() -> str:
        if dist.get_rank() == 1:
            raise ZeroDivisionError
        return "done"

    first, second = in_processes(lambda: in_all_processes(work))
    assert (type(first), str(first)) == (UserError, "ZeroDivisionError() (process 1)")
    assert type(second) is ZeroDivisionError


def test_each_process_gets_the_results_of_all() -> None:
    shares = in_processes(lambda: in_all_processes(lambda: [*share_of_this_process(7)]), processes=3)
    assert shares == [[[0, 1], [2, 3], [4, 5, 6]]] * 3


def test_an_error_of_one_process_ends_all_and_the_first_says_it() -> None:
    def work() -> str:
        if dist.get_rank() == 1:
            raise UserError("this value is wrong")
        return "done"

    first, second = in_processes(lambda: in_all_processes(work))
    assert (type(first), str(first)) == (UserError, "this value is wrong (process 1)")
    assert (type(second), second.code) == (SystemExit, 2)
