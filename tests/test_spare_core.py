"""The second of two cores: lent while nobody else uses it. Clock and counters are the test's."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from machines import TwoCores

from edgevoice import host, spare_core
from edgevoice.spare_core import SpareCore, read_stat

WINDOW_S = 0.2


@pytest.fixture
def machine() -> TwoCores:
    return TwoCores()


def _asked(spare: SpareCore) -> int:
    with spare.threads() as count:
        return count


def test_a_core_that_nobody_uses_is_lent(machine: TwoCores) -> None:
    spare = machine.spare()
    machine.pass_time(WINDOW_S)
    assert _asked(spare) == 2


def test_this_process_s_own_work_does_not_count(machine: TwoCores) -> None:
    spare = machine.spare()
    machine.pass_time(WINDOW_S, own=1.0)
    assert _asked(spare) == 2


@pytest.mark.parametrize("field", [0, 1, 2, 5, 6, 7])
def test_whatever_others_do_with_it_counts(machine: TwoCores, field: int) -> None:
    """User, nice, system, interrupts, and what the host of a virtual machine takes."""
    machine.field = field
    spare = machine.spare()
    machine.pass_time(WINDOW_S, others=0.5)
    assert _asked(spare) == 1


@pytest.mark.parametrize("field", [3, 4, 8, 9])
def test_idleness_and_what_is_counted_twice_do_not(machine: TwoCores, field: int) -> None:
    machine.field = field
    spare = machine.spare()
    machine.pass_time(WINDOW_S, others=1.0)
    assert _asked(spare) == 2


def test_nothing_is_lent_before_it_is_known(machine: TwoCores) -> None:
    spare = machine.spare()
    assert _asked(spare) == 1


def test_it_is_taken_back_and_lent_again_while_a_computation_lasts(machine: TwoCores) -> None:
    spare = machine.spare()
    given = []
    for others in (0.1, 0.1, 1.0, 1.0, 0.0, 0.0):
        machine.pass_time(WINDOW_S, own=1.0, others=others)
        given.append(_asked(spare))
    assert given == [2, 2, 1, 1, 2, 2]


def test_between_two_looks_the_last_one_counts(machine: TwoCores) -> None:
    spare = machine.spare()
    machine.pass_time(WINDOW_S)
    assert _asked(spare) == 2
    machine.pass_time(0.05, others=1.0)
    assert _asked(spare) == 2
    machine.pass_time(0.15, others=1.0)
    assert _asked(spare) == 1


def test_one_computation_at_a_time_gets_it(machine: TwoCores) -> None:
    spare = machine.spare()
    machine.pass_time(WINDOW_S)
    with spare.threads() as first, spare.threads() as second:
        assert (first, second) == (2, 1)
    assert _asked(spare) == 2


def test_a_failed_computation_gives_it_back(machine: TwoCores) -> None:
    spare = machine.spare()
    machine.pass_time(WINDOW_S)
    with pytest.raises(ValueError, match="failed"), spare.threads():
        raise ValueError("failed")
    assert _asked(spare) == 2


def test_only_the_process_s_cores_are_looked_at(machine: TwoCores) -> None:
    spare = machine.spare(0)
    machine.pass_time(WINDOW_S, others=1.0)  # on core 1
    assert _asked(spare) == 2


def test_a_system_that_does_not_tell_keeps_it(machine: TwoCores) -> None:
    """Android lets no application read /proc/stat."""
    machine.tells = False
    spare = machine.spare()
    machine.pass_time(WINDOW_S)
    assert _asked(spare) == 1


def test_cores_that_are_not_listed_keep_it(machine: TwoCores) -> None:
    spare = machine.spare(0, 1, 2)
    machine.pass_time(WINDOW_S)
    assert _asked(spare) == 1


def test_only_the_default_on_two_cores_borrows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cores", lambda: 2)
    assert spare_core.found(0, "") is not None
    assert spare_core.found(1, "") is None
    assert spare_core.found(2, "") is None
    assert spare_core.found(0, "0,1") is None
    monkeypatch.setattr(host, "cores", lambda: 4)
    assert spare_core.found(0, "") is None
    monkeypatch.setattr(host, "cores", lambda: 1)
    assert spare_core.found(0, "") is None


@pytest.mark.skipif(not read_stat(), reason="this system does not let /proc/stat be read")
def test_a_busy_process_is_seen_on_this_machine() -> None:
    """Two busy processes keep any core of a machine with two from being lent."""
    cores = frozenset(sorted(os.sched_getaffinity(0))[:2])
    pin = f"import os; os.sched_setaffinity(0, {set(cores)}); print(flush=True)\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", pin], stdout=subprocess.PIPE) for _ in cores]
    try:
        for each in busy:
            assert each.stdout is not None
            each.stdout.readline()
        spare = SpareCore(cores)
        time.sleep(2 * WINDOW_S)
        assert _asked(spare) == 1
    finally:
        for each in busy:
            each.kill()
            each.communicate()
