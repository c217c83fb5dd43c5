"""One way to call many functions with arguments: here, in worker processes, or on a Dask cluster.

    with pool(jobs=4, folder=held) as calls:
        for found in calls.each(items): ...              # as they come
        for found in calls.ordered(items, "name"): ...   # in the items' order, and kept until all are there

Whichever way, the same is found: a function has all that it depends on in its arguments, and results go by number, not
by when they come. An argument that is the same object in one item and the next is sent to a worker once. A worker
that dies is replaced and what it was doing is done again; a task that keeps killing workers is named. A cluster that
has no worker is waited for, for a while; one that has lost its scheduler, or cannot read what it is sent, is not.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import logging
import operator
import os
import pickle
import platform
import queue
import re
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from biglocal.model import Analysis, BiglocalError
from biglocal.results import digest
from biglocal.study import HERE

Item = tuple[Callable[..., Any], tuple[Any, ...]]
TRIES = 3  # of a task whose worker dies
SMALL = 1 << 15  # bytes: what is no more than this goes with its task
DIED = (
    f"its worker process died at least {TRIES} times, the last with nothing beside it, as one does that is short of "
    f"memory. Run with fewer --jobs, or give workers more memory; what is done is kept."
)
DROPPED = (
    "scheduler-connection-lost",
    "scheduler-restart",
    "lost dependencies",
)  # Dask's words: all of the run's is gone
CLUSTER_WIDTH = 1000  # tasks that a cluster is given at a time: they are small, and its workers are not counted
SENT = ".sent-"  # folders of what worker processes are sent and put aside
PATIENCE = "10s"  # until a scheduler that does not answer is not there
TICK = 2.0  # seconds without a result until a cluster is looked at
SOON, LATE = 5.0, 60.0  # seconds without a worker until the user is told, and until the run ends
SILENCE = 120.0  # seconds in which a scheduler that is there has to answer
SETUP = "Install the same lock and the same clone there"
AGAIN = "What is done is kept: run again"
ADDRESS = "Give the address that `dask scheduler` prints, such as tcp://host:8786, or local:2."
LIBRARIES = ("numpy", "pandas", "pyfixest", "scipy", "statsmodels")


@dataclass(frozen=True, slots=True)
class Failed:
    """What a function raised, given back in its turn."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Pool:
    """Calls functions with arguments: `engine` runs them elsewhere, None here; `folder` keeps results of `ordered`, and
    `say` is told when a run finds some there."""

    engine: _Engine | None = None
    folder: Path | None = None
    say: Callable[[str], None] = lambda _: None

    def each(self, items: Iterable[Item]) -> Iterator[Any]:
        """Results as they come. Raises what the first function to fail raised."""
        with closing(self._calls(enumerate(items))) as calls:
            for _, found in calls:
                yield _value(found)

    def ordered(self, items: Iterable[Item], name: str = "") -> Iterator[Any]:
        """Results in the order of items; raises what a function raised in its turn.

        With a `name`, which has to say all that results depend on, each result is written to a file of that name in
        `folder` as it comes, and is not computed again in a run after this one was killed.
        """
        with _kept(self.folder / name if self.folder and name else None) as (there, keep):
            waiting = dict(there)
            if there:
                self.say(f"{name.partition('/')[0]}: {len(there)} tasks were done by a run that was stopped")
            fresh = ((n, item) for n, item in enumerate(items) if n not in there)
            turn = 0
            with closing(self._calls(fresh)) as calls:
                while True:
                    while turn in waiting:
                        yield _value(waiting.pop(turn))
                        turn += 1
                    number, found = next(calls, (-1, None))
                    if number < 0:
                        return
                    waiting[number] = found
                    if not isinstance(found, Failed):
                        keep(number, found)

    def _calls(self, numbered: Iterator[tuple[int, Item]]) -> Generator[tuple[int, Any]]:
        """Number and result (or `Failed`) of each, as they come."""
        if self.engine is None:
            for number, (function, arguments) in numbered:
                yield number, _tried(function, arguments)
            return
        engine, todo = self.engine, _sent_once(numbered, self.engine.send)
        flying: dict[Any, tuple[int, Item]] = {}
        again: deque[tuple[int, Item]] = deque()
        deaths: Counter[int] = Counter()
        try:
            while True:
                # until now a death may have been a neighbour's fault: the last try is alone
                alone = any(deaths[n] >= engine.tries - 1 for n, _ in (*again, *flying.values()))
                while len(flying) < (1 if alone else engine.width):
                    one = again.popleft() if again else next(todo, None)
                    if one is None:
                        break
                    flying[engine.submit(*one[1])] = one
                if not flying:
                    return
                lost = []
                for future in engine.wait(flying):
                    one = flying.pop(future)
                    try:
                        found = engine.result(future)
                    except engine.lost:
                        lost.append(one)
                        continue
                    except engine.dropped:  # done, and lost with the worker that held it: nobody's fault
                        again.append(one)
                        continue
                    yield one[0], found
                if lost:
                    for future in list(flying) if engine.whole else ():
                        one = flying.pop(future)
                        try:
                            found = engine.result(future)
                        except engine.lost:
                            lost.append(one)
                            continue
                        yield one[0], found
                    for number, item in sorted(lost, key=lambda one: one[0]):
                        deaths[number] += 1
                        if deaths[number] >= engine.tries:
                            raise BiglocalError(f"{_named(number, item)}: {DIED}")
                        again.append((number, item))
                    engine.revive()
        finally:
            engine.drop(flying)


class _Engine(Protocol):
    """What runs functions elsewhere. `width`: tasks given to it at a time. `tries`: losses that end it for a task.
    `whole`: whether one worker's death loses all tasks that it has."""

    width: int
    tries: int
    whole: bool
    lost: tuple[type[Exception], ...]
    dropped: tuple[type[BaseException], ...]

    def send(self, value: Any) -> Any: ...
    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any: ...
    def wait(self, futures: Collection[Any]) -> Collection[Any]: ...
    def result(self, future: Any) -> Any: ...
    def revive(self) -> None: ...
    def drop(self, futures: Collection[Any]) -> None: ...


@contextmanager
def pool(
    jobs: int = 1, scheduler: str = "", folder: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Pool]:
    """`jobs` worker processes of this machine (1: none, here), or the workers of a Dask `scheduler`.

    `scheduler`: an address (tcp://… or tls://…), or local:N for a cluster of N processes on this machine. `folder`
    takes what may hold confidential rows: what is sent to processes of this machine, and results of `ordered`. `say`
    is told that a cluster's workers are waited for, and what was done before.

    Raises `BiglocalError` where the scheduler cannot be reached or goes, no worker is there for a minute, Dask is not
    installed, or a worker lacks this package or has another version of it, of its libraries or of Python.
    """
    for left in folder.glob(f"{SENT}*") if folder else ():  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    if scheduler:
        with _cluster(scheduler, folder, say) as engine:
            yield Pool(engine, folder, say)
    elif jobs > 1:
        with _processes(jobs, folder) as engine:
            yield Pool(engine, folder, say)
    else:
        yield Pool(None, folder, say)


def check(scheduler: str) -> None:
    """Raise `BiglocalError` for what cannot be the address of a scheduler; '' is none."""
    kind, _, rest = scheduler.partition(":")
    if kind == "local" and not (rest.isdigit() and int(rest)):
        raise BiglocalError(f"--scheduler {scheduler}: local:N needs a number of worker processes, say local:2.")
    if scheduler and kind != "local" and not re.fullmatch(r"(tcp|tls)://.+:\d+", scheduler):
        raise BiglocalError(f"--scheduler {scheduler}: not an address. {ADDRESS}")


def forget(folder: Path, names: Iterable[str]) -> None:
    """Remove what `ordered` kept under these names, and folders of theirs in `folder` with the last."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
        for above in (folder / name).parents[: name.count("/")]:
            with suppress(OSError):
                above.rmdir()


# --- results that are kept -------------------------------------------------------------------------------------

HEAD = struct.Struct("<QQ32s")  # number and length of a pickled result, and the sha256 of all three


@contextmanager
def _kept(path: Path | None) -> Iterator[tuple[dict[int, Any], Callable[[int, Any], None]]]:
    """The results in a file, by number, and what appends one; a last one that was torn is dropped. None keeps none.

    They are pickled, and read from a folder that the user's own run wrote: as trusted as the code beside it.
    """
    if path is None:
        yield {}, lambda *_: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data, found, end = (path.read_bytes() if path.exists() else b""), {}, 0
    while end + HEAD.size <= len(data):
        number, size, sum_ = HEAD.unpack_from(data, end)
        body = data[end + HEAD.size : end + HEAD.size + size]
        if _sum(number, body) != sum_:
            break
        found[number] = pickle.loads(body)
        end += HEAD.size + size
    with path.open("ab") as file:
        file.truncate(end)

        def keep(number: int, value: Any) -> None:
            body = pickle.dumps(value)
            file.write(HEAD.pack(number, len(body), _sum(number, body)) + body)
            file.flush()

        yield found, keep


def _sum(number: int, body: bytes) -> bytes:
    return hashlib.sha256(struct.pack("<QQ", number, len(body)) + body).digest()


# --- calling ---------------------------------------------------------------------------------------------------


def _tried(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    try:
        return function(*arguments)
    except Exception as e:
        return Failed(e)


def _value(found: Any) -> Any:
    if isinstance(found, Failed):
        raise found.error
    return found


def _named(number: int, item: Item) -> str:
    """The analyses that a task is for, found in its arguments; else what it calls."""
    for argument in item[1]:
        several = argument if isinstance(argument, list | tuple) else [argument]
        if ids := [a.id for a in several if isinstance(a, Analysis)]:
            return f"analysis {ids[0]}" + (f" and {len(ids) - 1} with it" if len(ids) > 1 else "") + f", task {number}"
    return f"task {number} of {item[0].__module__}.{item[0].__name__}"


def _sent_once(numbered: Iterator[tuple[int, Item]], send: Callable[[Any], Any]) -> Iterator[tuple[int, Item]]:
    """Items, with what is at hand at the worker in place of an argument that the item before or after has too."""
    known: dict[int, tuple[Any, Any]] = {}  # id -> the object, so that the id stays its own, and what stands for it
    before: set[int] = set()
    here = next(numbered, None)
    while here is not None:
        after = next(numbered, None)
        number, (function, arguments) = here
        own = {id(a) for a in arguments}
        known = {i: k for i, k in known.items() if i in own}
        often = own & (before | ({id(a) for a in after[1][1]} if after else set()))
        for a in arguments:
            if id(a) in often and id(a) not in known:
                known[id(a)] = (a, send(a))
        yield number, (function, tuple(known[id(a)][1] if id(a) in known else a for a in arguments))
        before, here = own, after


@cache
def stamp() -> tuple[str, ...]:
    """The package's code as a digest, Python, and the libraries that numbers come from: a worker must have the same."""
    code = digest(*(p.read_bytes() for p in sorted(HERE.rglob("*.py"))))
    python = ".".join(map(str, sys.version_info[:2]))
    return f"biglocal {code[:12]}", f"Python {python}", *(f"{name} {version(name)}" for name in LIBRARIES)


@cache
def _prepared(wanted: tuple[str, ...]) -> None:
    """Once in a worker: the same code as where the run was started, and linear algebra on one thread."""
    import scipy.linalg  # noqa: F401  # loads the libraries that are to be limited
    from threadpoolctl import threadpool_limits

    if others := [f"{ours}, not {theirs}" for ours, theirs in zip(stamp(), wanted, strict=True) if ours != theirs]:
        raise BiglocalError(
            f"worker {platform.node()}: another version than where the run was started: {'; '.join(others)}. {SETUP}."
        )
    threadpool_limits(1)


def _in_worker(wanted: tuple[str, ...], function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        _prepared(wanted)
        given = [a.load() if isinstance(a, _Sent) else a for a in arguments]
    except BiglocalError as e:
        return Failed(e)
    found = _tried(function, given)
    if isinstance(found, Failed) and not isinstance(found.error, BiglocalError):
        found.error.add_note("".join(traceback.format_exception(found.error)))  # it is lost on the way otherwise
    return found


# --- worker processes of this machine --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sent:
    """A value in a file: how long its parts are, the first the pickle, the others its arrays."""

    path: str
    sizes: tuple[int, ...]

    def load(self) -> Any:
        """The value; in one process the same object every time. Its arrays are mapped: all processes share them."""
        if self.path not in _LOADED:
            import mmap

            with Path(self.path).open("rb") as file:
                whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
            parts, at = [], 0
            for size in self.sizes:
                parts.append(whole[at : at + size])
                at += size + -size % 64
            while len(_LOADED) >= 4:
                del _LOADED[next(iter(_LOADED))]
            _LOADED[self.path] = pickle.loads(parts[0], buffers=parts[1:])
        return _LOADED[self.path]


_LOADED: dict[str, Any] = {}  # of a worker process


class _Processes:
    """Worker processes by loky, started as fresh ones and given a value by a file that they map into memory."""

    tries, whole = TRIES, True
    dropped: tuple[type[BaseException], ...] = ()

    def __init__(self, jobs: int, folder: Path) -> None:
        from concurrent.futures.process import BrokenProcessPool

        self.jobs, self.folder, self.width = jobs, folder, 2 * jobs
        self.lost: tuple[type[Exception], ...] = (BrokenProcessPool,)
        self.count = 0
        self.start()

    def start(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # glibc would give pages back after each array and take them again: a sixth of the multiverse's time
        one |= {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
        self.executor = ProcessPoolExecutor(self.jobs, env=one, initializer=_begin, initargs=(os.getpid(),))

    def send(self, value: Any) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        parts: list[bytes | memoryview] = [pickle.dumps(value, 5, buffer_callback=buffers.append)]
        parts += [b.raw() for b in buffers]
        sizes = tuple(len(p) for p in parts)
        if sum(sizes) <= SMALL:
            return value
        self.count += 1
        path = self.folder / f"{self.count}"
        with path.open("wb") as file:
            for part in parts:
                file.write(part)
                file.write(bytes(-len(part) % 64))
        return _Sent(str(path), sizes)

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return self.executor.submit(_in_worker, stamp(), function, *arguments)

    def wait(self, futures: Collection[Any]) -> Collection[Any]:
        from concurrent.futures import FIRST_COMPLETED, wait

        return wait(futures, return_when=FIRST_COMPLETED).done

    def result(self, future: Any) -> Any:
        return future.result()

    def revive(self) -> None:
        self.executor.shutdown(wait=True, kill_workers=True)
        self.start()

    def drop(self, futures: Collection[Any]) -> None:
        for future in futures:
            future.cancel()


def _begin(parent: int) -> None:
    """In a fresh worker: an interrupt is for the run to deal with, and a worker does not outlive it."""
    from joblib.externals.loky import process_executor

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process_executor._USE_PSUTIL = False  # it takes the data that a worker keeps for a leak, and ends the worker

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _processes(jobs: int, folder: Path | None) -> Iterator[_Processes]:
    with _scratch(folder) as sent:
        engine = _Processes(jobs, sent)
        try:
            yield engine
        finally:
            engine.executor.shutdown(wait=True, kill_workers=True)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder in `folder` for the time being."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=SENT, dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


# --- a Dask cluster --------------------------------------------------------------------------------------------


_ALONE = threading.Lock()  # in a worker: filters of warnings, and what pyfixest is made to do in order, are a process's


def _read_in_worker(wanted: tuple[str, ...], task: bytes, *sent: Any) -> Any:
    """`_in_worker`, of what `_Cluster.submit` pickled: versions are compared before anything of ours is read.

    One at a time, whatever number of threads the worker was started with.
    """
    with _ALONE:
        try:
            _prepared(wanted)
        except BiglocalError as e:
            return Failed(e)
        function, places, arguments = pickle.loads(task)
        for place, value in zip(places, sent, strict=True):
            arguments.insert(place, value)
        return _in_worker(wanted, function, *arguments)


class _Cluster:
    """The workers of a Dask scheduler, which does again itself what a dead worker was doing or holding.

    It gives up on all that the worker had, after some deaths: hence the second try, alone. What it is given names the
    standard library alone: of a task that it cannot read a worker dies without a word, and the next one after it.
    """

    width, tries, whole = CLUSTER_WIDTH, 2, False

    def __init__(self, client: Any, say: Callable[[str], None]) -> None:
        distributed: Any = importlib.import_module("distributed")
        self.client, self.say, self.address = client, say, client.scheduler.address
        self.future, self.killed = distributed.Future, distributed.scheduler.KilledWorker
        self.lost: tuple[type[Exception], ...] = (self.killed,)
        self.dropped: tuple[type[BaseException], ...] = (distributed.client.FutureCancelledError, CancelledError)
        self.done: queue.SimpleQueue[tuple[Any, Any, Exception | None]] = queue.SimpleQueue()
        self.found: dict[Any, tuple[Any, Exception | None] | None] = {}  # of what is wanted; None: not yet
        self.code = pickle.dumps(_read_in_worker)
        self.number = itertools.count()  # of a task: no two of a scheduler have the same key
        self.reader = client.submit(pickle.loads, self.code, pure=False)

    def send(self, value: Any) -> Any:
        data = pickle.dumps(value, 5)
        # a task and not scattered: what its workers lose by dying is made again
        return self.client.submit(pickle.loads, data, pure=False) if len(data) > SMALL else value

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        places = [i for i, a in enumerate(arguments) if isinstance(a, self.future)]
        others = [a for a in arguments if not isinstance(a, self.future)]
        task = pickle.dumps((function, places, others), 5)
        key = f"{getattr(function, '__name__', 'task').strip('_')}-{self.client.id}-{next(self.number)}"
        sent = (arguments[i] for i in places)
        future = self.client.submit(operator.call, self.reader, stamp(), task, *sent, key=key)
        self.found[future] = None
        self.client.loop.add_callback(self._follow, future)
        return future

    async def _follow(self, future: Any) -> None:
        """Fetch a result in the client's thread: the run's own never waits for what a worker took with it."""
        try:
            self.done.put((future, await future.result(), None))
        except Exception as e:
            self.done.put((future, None, e))

    def wait(self, futures: Collection[Any]) -> Collection[Any]:
        """Those that are done. Raises `BiglocalError` where none can be any more."""
        last = time.monotonic()  # that a worker was there
        said = False
        while True:
            with suppress(queue.Empty):
                while True:
                    self._take(self.done.get_nowait())
            if there := [f for f in futures if self.found[f]]:
                return there
            try:
                self._take(self.done.get(timeout=TICK))
            except queue.Empty:
                now = time.monotonic()
                if self._workers():
                    last, said = now, False
                elif now - last >= LATE:
                    raise BiglocalError(
                        f"no worker that takes tasks at {self.address} for {LATE:.0f} s. Start some: `dask worker "
                        f"{self.address} --nthreads 1`, with the same lock and the same clone. {AGAIN}."
                    ) from None
                elif now - last >= SOON and not said:
                    self.say(f"waiting for workers at {self.address}")
                    said = True

    def _take(self, done: tuple[Any, Any, Exception | None]) -> None:
        future, value, error = done
        if future in self.found:
            self.found[future] = (value, error)

    def _workers(self) -> int:
        """How many there are that take tasks or do one: one that is short of memory may do neither for ever."""
        try:
            told = self.client.sync(self.client.scheduler.identity, n_workers=-1, callback_timeout=SILENCE)
        except TimeoutError:
            raise BiglocalError(
                f"the scheduler at {self.address} has not answered for {SILENCE:.0f} s. {AGAIN}."
            ) from None
        except (OSError, AttributeError):  # AttributeError: the client has closed
            raise self._gone() from None
        busy = [w["metrics"].get("task_counts", {}).get("executing", 0) for w in told["workers"].values()]
        return sum(w["status"] == "running" or n > 0 for w, n in zip(told["workers"].values(), busy, strict=True))

    def _gone(self) -> BiglocalError:
        return BiglocalError(f"the scheduler at {self.address} is gone, or has dropped the run's tasks. {AGAIN}.")

    def result(self, future: Any) -> Any:
        value, error = self.found.pop(future) or (None, None)
        if error is None:
            return value
        here = isinstance(error, OSError) and future.status != "error"  # no worker's: the way to it broke
        if here or self.client.status != "running" or getattr(error, "reason", None) in DROPPED:
            raise self._gone() from None
        if isinstance(error, (*self.lost, *self.dropped)):
            raise error
        told = self.client.run(pickle.loads, self.code, on_error="return")
        if cannot := {worker: e for worker, e in told.items() if isinstance(e, Exception)}:
            worker, e = next(iter(cannot.items()))
            raise BiglocalError(
                f"{len(cannot)} of {len(told)} workers cannot read their tasks, {worker} the first: "
                f"{type(e).__name__}: {e}. {SETUP}, start the workers from there, and run again: what is done is kept."
            ) from None
        raise error

    def revive(self) -> None:
        """Dask does."""

    def drop(self, futures: Collection[Any]) -> None:
        for future in futures:
            self.found.pop(future, None)
        if futures and self.client.status == "running":
            self.client.cancel(list(futures), force=True)


@contextmanager
def _cluster(address: str, folder: Path | None, say: Callable[[str], None]) -> Iterator[_Cluster]:
    try:
        distributed: Any = importlib.import_module("distributed")
        dask: Any = importlib.import_module("dask")
    except ImportError:
        raise BiglocalError(
            "--scheduler: Dask is not installed here. Use `nox -s cluster -- --scheduler ADDRESS`, or install "
            "locks/cluster.txt."
        ) from None
    check(address)
    kind, _, count = address.partition(":")
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.admin.large-graph-warning-threshold": "1 TiB",  # the data are meant to be sent, once
    }
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # errors are said here, in our words
    with dask.config.set(settings), _scratch(folder) if kind == "local" else nullcontext() as aside:
        cluster = client = None
        try:
            if kind == "local":
                cluster = distributed.LocalCluster(
                    n_workers=int(count), threads_per_worker=1, dashboard_address="127.0.0.1:0",
                    local_directory=aside, silence_logs="CRITICAL",
                )  # fmt: skip
            try:
                client = distributed.Client(cluster or address, set_as_default=False, timeout=PATIENCE)
            except (OSError, ValueError) as e:
                raise BiglocalError(f"--scheduler {address}: {str(e) or 'no answer'}. {ADDRESS}") from None
            yield _Cluster(client, say)
        finally:
            if client is not None:
                with suppress(OSError):  # of a scheduler that is gone
                    client.close()
            if cluster is not None:
                cluster.close()
