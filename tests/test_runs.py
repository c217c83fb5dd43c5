"""Many functions called: the same found whichever way, nothing lost that was done, workers that die."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biglocal.runs
from biglocal import estimate, recovery, release, run
from biglocal.data import load as data_load
from biglocal.data.load import Tier
from biglocal.model import Analysis, BiglocalError, Inapplicable
from biglocal.runs import Pool, forget, pool
from biglocal.study import PATH

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories")  # Dask's, of a slow disk
WAYS = {"here": {}, "two": {"jobs": 2}, "dask": {"scheduler": "local:2"}}


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool(**WAYS[request.param], folder=tmp_path_factory.mktemp(request.param)) as calls:
        yield calls


def weighed(data: dict[str, np.ndarray], i: int) -> tuple[int, float]:
    time.sleep(0.02 * (i % 3 == 0))  # so that they do not come in order
    return i, float((data["x"] * np.roll(data["x"], i)).sum())  # no product of BLAS: its sums follow the threads


def refused(i: int) -> int:
    if i in (3, 4):
        raise Inapplicable(f"no {i}")
    return i


DATA = {"x": np.random.default_rng(1).normal(size=50_000)}
ITEMS = [(weighed, (DATA, i)) for i in range(24)]
PLAIN = [function(*arguments) for function, arguments in ITEMS]


def test_results_come_in_order_or_as_they_come(way: Pool) -> None:
    assert list(way.ordered(iter(ITEMS))) == PLAIN
    assert sorted(way.each(iter(ITEMS))) == PLAIN


def test_two_calls_at_a_time_find_their_own(way: Pool) -> None:
    both = zip(way.ordered(iter(ITEMS)), way.ordered(iter(ITEMS[::-1])), strict=True)
    assert list(both) == list(zip(PLAIN, PLAIN[::-1], strict=True))
    begun = way.ordered(iter(ITEMS))
    assert next(begun) == PLAIN[0]
    begun.close()  # what it still wanted is held by nobody
    assert list(way.ordered(iter(ITEMS))) == PLAIN
    assert not getattr(way.engine, "found", None)


def test_the_first_to_be_refused_is_said_in_its_turn(way: Pool) -> None:
    seen = []
    with pytest.raises(Inapplicable, match=r"^no 3$"):
        for found in way.ordered((refused, (i,)) for i in range(12)):
            seen.append(found)  # noqa: PERF402  # what came before it failed is the point
    assert seen == [0, 1, 2]
    assert list(way.ordered((refused, (i,)) for i in range(3))) == seen  # and the pool is still of use


def test_what_was_done_is_not_done_again(way: Pool, tmp_path: Path) -> None:
    said: list[str] = []
    calls = Pool(way.engine, tmp_path, said.append)
    first = calls.ordered(iter(ITEMS), "part/name")
    begun = [next(first) for _ in range(7)]
    first.close()  # as a run that ends here
    done = [n for n, _ in kept(tmp_path / "part" / "name")]
    assert set(range(7)) <= set(done)
    other = [(refused, (9,)) if i in done else item for i, item in enumerate(ITEMS)]  # were they called, they would say
    assert list(calls.ordered(iter(other), "part/name")) == PLAIN
    assert begun == PLAIN[:7]
    assert said == [f"part: {len(done)} tasks were done by a run that was stopped"]
    assert list(calls.ordered(((refused, (i,)) for i in range(2)), "part/other")) == [0, 1]
    forget(tmp_path, ["part/other"])
    assert [p.name for p in (tmp_path / "part").iterdir()] == ["name"]
    forget(tmp_path, ["part/name"])
    assert not (tmp_path / "part").exists()


def kept(path: Path) -> list[tuple[int, object]]:
    with biglocal.runs._kept(path) as (there, _):
        return list(there.items())


@pytest.mark.parametrize("harm", ["torn", "altered", "empty", "number"])
def test_a_result_that_was_half_written_is_made_again(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "part" / "name"
    calls = Pool(None, tmp_path)
    assert list(calls.ordered(iter(ITEMS[:5]), "part/name")) == PLAIN[:5]
    data = path.read_bytes()
    at = 3 * len(data) // 5  # where the fourth begins: under another number its value would be in another's place
    renumbered = data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]
    altered = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes({"torn": data[:-3], "altered": altered, "empty": b"", "number": renumbered}[harm])
    assert [n for n, _ in kept(path)] == ([] if harm == "empty" else [0, 1, 2] if harm == "number" else [0, 1, 2, 3])
    assert list(calls.ordered(iter(ITEMS[:5]), "part/name")) == PLAIN[:5]
    assert path.read_bytes() == data


def once_killed(mark: Path, i: int) -> int:
    if i == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def killing(some: list[Analysis], i: int) -> int:
    if i == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def test_a_dead_worker_costs_nothing(way: Pool, tmp_path: Path) -> None:
    if way.engine is None:
        pytest.skip("the run itself would die")
    assert list(way.ordered((once_killed, (tmp_path / "died", i)) for i in range(12))) == list(range(12))
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("name", ["two", "dask"])
def test_a_task_that_kills_its_workers_is_named(name: str, tmp_path: Path) -> None:
    some = [Analysis(f"effects/{x}", "effects", x, "all", "", "twfe", "none", "") for x in "ab"]
    said = r"^analysis effects/a and 1 with it, task 2: its worker process died at least 3 times, .*fewer --jobs"
    with pool(**WAYS[name], folder=tmp_path) as calls, pytest.raises(BiglocalError, match=said):
        list(calls.ordered(((killing, (some, i)) for i in range(6)), "part/name"))
    assert 2 not in {n for n, _ in kept(tmp_path / "part" / "name")}


def handled(data: dict[str, np.ndarray], i: int) -> tuple[int, int, bool]:
    data["x"][0] = i  # a worker's own: no other sees it, nor the next run
    return os.getpid(), id(data), data["x"].flags.writeable


def test_data_are_sent_once_and_are_each_workers_own(way: Pool) -> None:
    if way.engine is None:
        pytest.skip("nothing is sent")
    sent, send = [], way.engine.send
    way.engine.send = lambda value: (sent.append(value), send(value))[1]  # type: ignore[method-assign]
    try:
        found = list(way.ordered((handled, ({**DATA}, 0) if i == 9 else (DATA, i)) for i in range(24)))
    finally:
        way.engine.send = send  # type: ignore[method-assign]
    heavy = [v for v in sent if isinstance(v, dict)]
    assert len(heavy) == 2  # before and after the one that differed
    by: dict[int, set[int]] = {}
    for worker, where, writeable in found:
        assert writeable
        by.setdefault(worker, set()).add(where)
    assert all(len(objects) <= 3 for objects in by.values())
    assert DATA["x"][0] == np.random.default_rng(1).normal(size=1)[0]


def test_another_version_at_the_worker_is_refused() -> None:
    ours = biglocal.runs.stamp()
    theirs = (ours[0], "Python 2.7", *ours[2:])
    said = rf"^worker .*: another version than where the run was started: {ours[1]}, not Python 2.7. Install"
    task = biglocal.runs.pickle.dumps((refused, [], [1]))
    for found in (biglocal.runs._in_worker(theirs, refused, 1), biglocal.runs._read_in_worker(theirs, task)):
        assert isinstance(found, biglocal.runs.Failed)
        with pytest.raises(BiglocalError, match=said):
            biglocal.runs._value(found)


RUNNING: list[int] = []


def beside(i: int) -> int:
    RUNNING.append(i)
    time.sleep(0.05)
    others = len(RUNNING) - 1
    RUNNING.remove(i)
    return others


def test_a_worker_with_several_threads_does_one_task_at_a_time() -> None:
    with ThreadPoolExecutor(4) as threads:
        tasks = (biglocal.runs.pickle.dumps((beside, [], [i])) for i in range(8))
        assert list(threads.map(biglocal.runs._read_in_worker, [biglocal.runs.stamp()] * 8, tasks)) == [0] * 8
        assert max(threads.map(beside, range(8))) > 0  # they would


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("local:none", "local:N needs a number"),
        ("tcp://127.0.0.1:9", "--scheduler tcp://127"),
        ("http://127.0.0.1:9", "not an address. Give the address"),
        ("nonsense", "not an address. Give the address"),
    ],
)
def test_no_cluster_is_said(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    import dask

    monkeypatch.setattr(biglocal.runs, "PATIENCE", "1s")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(BiglocalError, match=said):  # noqa: SIM117
        with pool(scheduler=address):
            pass


def test_no_dask_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(BiglocalError, match=r"Dask is not installed here. Use `nox -s cluster"),
        pool(scheduler="local:2"),
    ):
        pass


def test_workers_do_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, time\nfrom pathlib import Path\nfrom biglocal.runs import pool\n"
        f"def run(i):\n    Path(r'{tmp_path}', str(os.getpid())).touch()\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        f"    with pool(jobs=2, folder=Path(r'{tmp_path}')) as calls:\n        list(calls.each((run, (i,)) for i in range(2)))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    running = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    pids: list[int] = []
    for _ in range(300):
        time.sleep(0.1)
        if len(pids := [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()]) == 2:
            break
    running.kill()
    running.wait()
    assert len(pids) == 2
    for _ in range(100):
        time.sleep(0.1)
        if not any(alive(p) for p in pids):
            break
    assert not [p for p in pids if alive(p)]
    with pool(jobs=2, folder=tmp_path):  # what the killed run had sent goes
        assert len(list(tmp_path.glob(".sent-*"))) == 1
    assert not list(tmp_path.glob(".sent-*"))


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# --- a cluster that is not as it should be ---------------------------------------------------------------------


class Machines:
    """A scheduler and workers as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes, self.schedulers = folder, [], 0
        self.address = ""

    def start(self, what: str, *options: str, path: str = os.pathsep.join(sys.path)) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options, "--no-dashboard"]
        with (self.folder / f"{what}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": path}, cwd=self.folder, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        self.schedulers += 1
        file = self.folder / f"scheduler-{self.schedulers}.json"
        process = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        wait_for(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        self.address = json.loads(file.read_text())["address"]
        return process

    def worker(self, **more: str) -> subprocess.Popen[bytes]:
        options = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder)]
        return self.start("worker", self.address, *options, **more)


def wait_for(what: Callable[[], Any], seconds: float = 60) -> None:
    for _ in range(int(seconds * 50)):
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("it has not happened")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
    for process in made.processes:
        process.wait()


def test_a_cluster_without_workers_is_waited_for_and_then_said(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patience(seconds: float) -> None:
        for name, of in {"TICK": 0.1, "SOON": 0.3, "LATE": seconds}.items():
            monkeypatch.setattr(biglocal.runs, name, of)

    patience(1)
    machines.scheduler()
    said: list[str] = []
    with pool(scheduler=machines.address, say=said.append) as calls:
        with pytest.raises(BiglocalError, match=rf"^no worker .* at {machines.address} for 1 s. Start some: `dask"):
            list(calls.each(iter(ITEMS)))
        assert said == [f"waiting for workers at {machines.address}"]
        patience(60)  # that a worker needs to start
        worker = machines.worker()
        found = calls.ordered((slow, (0.05, i)) for i in range(40))
        assert next(found) == 0
        worker.kill()  # they are all gone
        another = machines.worker()
        assert list(found) == list(range(1, 40))
        patience(1)
        assert list(calls.ordered([(slow, (2.5, 7))])) == [7]  # a task may be longer, with a worker there
        another.kill()
        with pytest.raises(BiglocalError, match=r"^no worker"):
            list(calls.ordered((slow, (0.05, i)) for i in range(40)))


def test_a_scheduler_that_hangs_is_said(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biglocal.runs, "TICK", 0.1)
    monkeypatch.setattr(biglocal.runs, "SILENCE", 2.0)
    scheduler = machines.scheduler()
    machines.worker()
    with pool(scheduler=machines.address) as calls:
        found = calls.ordered((slow, (0.05, i)) for i in range(400))
        assert next(found) == 0
        scheduler.send_signal(signal.SIGSTOP)
        with pytest.raises(BiglocalError, match=rf"^the scheduler at {machines.address} has not answered for 2 s"):
            list(found)


def slow(seconds: float, i: int) -> int:
    time.sleep(seconds)
    return i


def test_workers_that_cannot_read_a_task_are_named(machines: Machines, tmp_path: Path) -> None:
    machines.scheduler()
    hidden = "raise ModuleNotFoundError(\"No module named 'biglocal'\")"  # also where it is installed
    (tmp_path / "biglocal.py").write_text(hidden, encoding="utf-8")
    machines.worker(path=str(tmp_path))
    said = (
        r"^1 of 1 workers cannot read their tasks, tcp://.* the first: ModuleNotFoundError: No module named 'biglocal'."
    )
    with pool(scheduler=machines.address) as calls, pytest.raises(BiglocalError, match=said):
        list(calls.each(iter(ITEMS)))


# --- whole runs ------------------------------------------------------------------------------------------------

SOME = ["trends", "effects/samhi/all/nearest", "families/burglary", "recovery/swemwbs/*/cohort/least_squares"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with as few surveys made anew as it may have."""
    path = tmp_path_factory.mktemp("study") / "study.toml"
    text = re.sub(r"\nrecoveries = \d+", "\nrecoveries = 20", PATH.read_text(encoding="utf-8"))
    path.write_text(text.replace("draws_quick = 999", "draws_quick = 99"), encoding="utf-8")
    return path


def table(outputs: Path, study: Path, **how: Any) -> bytes:
    done = run.reproduce("synthetic", outputs=outputs, study_path=study, only=SOME, **how)
    assert not (outputs / "synthetic" / run.TASKS).exists()
    assert done.estimated + done.reused > 15
    return (outputs / "synthetic" / "results.csv").read_bytes()


@pytest.fixture(scope="module")
def plain(few: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return table(tmp_path_factory.mktemp("plain"), few)


@pytest.mark.parametrize("how", [{"jobs": 2}, {"jobs": 4}, {"scheduler": "local:2"}], ids=["two", "four", "dask"])
def test_any_number_of_workers_writes_the_same_table(
    how: dict[str, Any], few: Path, plain: bytes, tmp_path: Path
) -> None:
    assert table(tmp_path, few, **how) == plain


def test_rows_in_another_order_write_the_same_table(
    few: Path, plain: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shuffle(tier: Tier, names: Collection[str]) -> None:
        for name in names:
            frame = tier.table(name)
            order = np.random.default_rng(len(frame)).permutation(len(frame))
            tier._kept[name] = frame.iloc[order].reset_index(drop=True)

    monkeypatch.setattr(data_load, "check_references", shuffle)  # called once all are read
    assert table(tmp_path, few, jobs=2) == plain


def test_a_part_on_request_that_was_killed_goes_on(
    few: Path, plain: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [w for name in SOME for w in ("--only", name)]
    command = [sys.executable, "-m", "biglocal", "reproduce", "--jobs", "2", "--outputs", tmp_path, "--study", few]
    process = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tasks = tmp_path / "synthetic" / run.TASKS / "recovery"
    for _ in range(1200):
        time.sleep(0.02)
        there = list(tasks.glob("*"))
        if there and there[0].stat().st_size > 3000:
            break
    process.kill()
    process.wait()
    assert not (tmp_path / "synthetic" / "results.csv").exists()
    (path,) = tasks.glob("*")
    done = len(kept(path))
    assert 0 < done < 20
    called = []
    once = recovery.once
    monkeypatch.setattr(recovery, "once", lambda *a: (called.append(a), once(*a))[1])
    again = run.reproduce("synthetic", outputs=tmp_path, study_path=few, only=SOME)
    assert len(called) == 20 - done
    assert again.reused > 0
    assert (tmp_path / "synthetic" / "results.csv").read_bytes() == plain
    assert not (tmp_path / "synthetic" / run.TASKS).exists()


def test_what_was_estimated_is_there_whatever_comes_after(
    few: Path, plain: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(release, "control", stopped)
        with pytest.raises(KeyboardInterrupt):
            table(tmp_path, few)
    monkeypatch.setattr(estimate, "work", stopped)
    monkeypatch.setattr(recovery, "once", stopped)
    assert table(tmp_path, few) == plain


def test_two_runs_on_one_folder_do_not_work_at_once(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def another(*_: Any) -> Any:
        with pytest.raises(BiglocalError, match=r"^another run is at work in .*synthetic: wait") as refused:
            run.reproduce("synthetic", outputs=tmp_path, study_path=few, only=["flow"])
        said.append(str(refused.value))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(estimate, "check_levels", another)
        with pytest.raises(KeyboardInterrupt):
            run.reproduce("synthetic", outputs=tmp_path, study_path=few, only=["flow"])
    assert len(said) == 1
    assert run.reproduce("synthetic", outputs=tmp_path, study_path=few, only=["flow"]).estimated


def test_a_scheduler_that_dies_is_said_and_the_run_goes_on_at_another(
    few: Path, plain: bytes, tmp_path: Path, machines: Machines
) -> None:
    scheduler = machines.scheduler()
    for _ in range(2):
        machines.worker()
    words = [w for name in SOME for w in ("--only", name)]
    begun = [sys.executable, "-m", "biglocal", "reproduce", "--outputs", tmp_path, "--study", few, *words]
    process = subprocess.Popen(
        [*begun, "--scheduler", machines.address], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    tasks = tmp_path / "synthetic" / run.TASKS / "recovery"
    wait_for(lambda: any(p.stat().st_size > 3000 for p in tasks.glob("*")))
    scheduler.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    last = said.rstrip().splitlines()[-1]
    assert f"the scheduler at {machines.address} is gone, or" in last
    assert last.endswith("What is done is kept: run again.")
    assert not (tmp_path / "synthetic" / "results.csv").exists()
    (path,) = tasks.glob("*")
    assert 0 < len(kept(path)) < 20
    machines.scheduler()
    machines.worker()
    assert table(tmp_path, few, scheduler=machines.address) == plain


LONG = [f"effects/{outcome}/all/nearest/twfe/common_start/randomisation" for outcome in ("samhi", "high_anxiety")]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with more draws than one task makes of a test."""
    path = tmp_path_factory.mktemp("study") / "study.toml"
    text = PATH.read_text(encoding="utf-8").replace("draws_quick = 999", "draws_quick = 40_000")
    path.write_text(text.replace("draws_full = 9_999", "draws_full = 40_000"), encoding="utf-8")
    return path


def test_a_long_test_is_made_by_many_tasks_and_goes_on_where_it_was_killed(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str, **how: Any) -> bytes:
        run.reproduce("synthetic", outputs=tmp_path / name, study_path=long, only=LONG, **how)
        assert not (tmp_path / name / "synthetic" / run.TASKS).exists()
        return (tmp_path / name / "synthetic" / "results.csv").read_bytes()

    share, called, ticks = estimate._share, [], []

    def counted(limit: int) -> Callable[..., Any]:
        def one(*arguments: Any) -> Any:
            if len(called) == limit:
                raise KeyboardInterrupt
            called.append(arguments[2:])
            return share(*arguments)

        return one

    @contextmanager
    def progress(total: int) -> Iterator[Callable[[int], None]]:
        assert total == 4  # the other stands in the journal
        yield ticks.append

    monkeypatch.setattr(estimate, "_share", counted(5))
    with pytest.raises(KeyboardInterrupt):
        found("one")
    assert {name for name, _ in called} == {*LONG}
    held = tmp_path / "one" / "synthetic" / run.TASKS / "effects"
    assert [len(kept(path)) for path in held.iterdir()] == [2]
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    beside = [LONG[0].replace("randomisation", "cluster")]
    run.reproduce("synthetic", outputs=tmp_path / "other", study_path=long, only=beside)
    assert len(list((tmp_path / "other" / "synthetic" / run.TASKS / "effects").iterdir())) == 1  # it is not of that run
    monkeypatch.setattr(estimate, "_share", counted(7))
    one = found("one", progress=progress)
    assert len(called) == len({*called}) == 6
    assert sum(ticks) == 4
    monkeypatch.undo()
    assert found("two", jobs=2) == one
    assert found("dask", scheduler="local:2") == one
    monkeypatch.setattr(import_module("biglocal.inference.randomisation"), "SHARE", 10**6)
    assert found("whole") == one
