"""How many cores and threads a process uses, and what waiting threads do."""

import math
import os
import subprocess
import sys

import pytest
import torch

from core.training import runtime, threads
from core.training.cli import command

MIN = runtime.MIN_PARALLEL_ELEMENTS


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(runtime, "available_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("elements", "expected"), [(0, 1), (MIN - 1, 1), (MIN, 2), (math.inf, 2)])
def test_small_steps_compute_with_one_thread(two_threads, elements, expected):
    with runtime.threads_for(elements):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2


def test_threads_stay_within_the_available_cores(two_threads, monkeypatch):
    monkeypatch.setattr(runtime, "available_cores", lambda: 1)
    with runtime.threads_for(math.inf):
        assert torch.get_num_threads() == 1


def test_given_number_of_threads_wins(two_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with runtime.threads_for(0):
        assert torch.get_num_threads() == 2


def test_number_of_threads_is_restored_after_an_error(two_threads):
    with pytest.raises(KeyError), runtime.threads_for(0):
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("given", [*threads.WAIT_VARIABLES, None])
def test_command_lets_waiting_threads_sleep_unless_the_user_chose(monkeypatch, given):
    for name in threads.WAIT_VARIABLES:
        monkeypatch.setenv(name, "")  # so that monkeypatch removes it afterwards
        monkeypatch.delenv(name)
    if given:
        monkeypatch.setenv(given, "7")
    seen = []
    command(lambda: seen.append({name: os.environ.get(name) for name in threads.WAIT_VARIABLES}))()
    expected = {given: "7"} if given else {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
    assert seen == [dict.fromkeys(threads.WAIT_VARIABLES) | expected]


def test_module_imports_no_torch():
    code = "import sys, core.training.threads; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000"}, math.inf),
        ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/of/the/host", {"cpu.max": "200000 100000"}, 2.0),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, 4.0),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("5:cpuset:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("", {}, math.inf),
        (None, {"cpu.max": "200000 100000"}, math.inf),
    ],
)
def test_quota_of_control_groups(tmp_path, groups, files, quota):
    """The smallest of a process's groups and of those around them; versions 1 and 2."""
    written = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    if groups is not None:
        written["proc/self/cgroup"] = groups
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n" if text else "")
    assert threads.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (2.5, 2), (0.5, 1), (100, 8)])
def test_available_cores_are_limited_by_the_quota(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.available_cores() == cores
