"""Where a session's slow work runs: on a thread of its own, or step by step on the caller's."""

from __future__ import annotations

import threading

import pytest

from edgevoice.workers import SteppedWorker, Worker


@pytest.mark.parametrize("kind", [Worker, SteppedWorker])
def test_jobs_run_in_order_and_an_error_ends_only_its_own(
    kind: type[Worker | SteppedWorker],
) -> None:
    done: list[str] = []
    errors: list[Exception] = []
    worker = kind("test", errors.append)

    def fail() -> None:
        raise ValueError("no")

    worker.submit(lambda: done.append("one"))
    worker.submit(fail)
    worker.submit(lambda: done.append("two"))
    worker.close()
    assert done == ["one", "two"]
    assert [str(error) for error in errors] == ["no"]
    assert worker.idle


def test_a_stepped_worker_does_one_job_a_step_on_the_thread_that_asks() -> None:
    ran_on: list[int] = []
    worker = SteppedWorker("test", pytest.fail)
    worker.submit(lambda: ran_on.append(threading.get_ident()))
    worker.submit(lambda: ran_on.append(threading.get_ident()))
    assert not worker.idle
    assert worker.step()
    assert ran_on == [threading.get_ident()]
    assert worker.step()
    assert worker.idle
    assert not worker.step()


def test_a_thread_does_its_jobs_without_being_asked() -> None:
    done = threading.Event()
    worker = Worker("test", pytest.fail)
    worker.submit(done.set)
    assert done.wait(5.0)
    assert not worker.step()
    worker.close()
