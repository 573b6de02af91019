"""What this machine has: free memory, room for temporary files, how fast it multiplies, and how many threads BLAS uses.

OpenBLAS, as numpy brings it, has one number of threads for the whole process; two limits of threadpoolctl that overlap
and are left in the order they were entered would leave it at one thread for good. So `blas_limited` counts all limits
of the process in one place. MKL, and BLAS on OpenMP, keep a number for each thread instead: `blas_by_thread` is for
them.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController, threadpool_limits


log = logging.getLogger(__name__)
# threadpoolctl's names for the threading layers of such libraries.
_COUNT_BY_THREAD = ["openmp", "intel", "gnu", "tbb", "pgi"]

MEASUREMENTS = 4  # of the machine's pace
_measured: dict[int, list[Rates]] = {}  # by number of BLAS threads
_lock = threading.RLock()
_limits: list[int] = []  # entered and not left
_held: threadpool_limits | None = None


def n_threads() -> int:
    """Threads that BLAS uses now: the cores, or the limit of OMP_NUM_THREADS or threadpoolctl; 1 where unknown."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@contextmanager
def blas_limited(limit: int) -> Iterator[bool]:
    """BLAS at no more than `limit` threads in the whole process. False, and no limit, where that cannot be set.

    Limits may overlap, and may be entered and left in any order and in any thread: the smallest holds, and the last
    one to be left restores the number from before the first. Yields False where another thread of this process has
    limited BLAS with threadpoolctl, or a library refuses.
    """
    with _lock:
        _limits.append(limit)
        had = _hold_smallest()
        if not had:
            _limits.remove(limit)
            _hold_smallest()
    try:
        yield had
    finally:
        if had:
            with _lock:
                _limits.remove(limit)
                _hold_smallest()


def _hold_smallest() -> bool:
    """Limit BLAS to the smallest of the limits that are entered, or to nothing; whether that holds now."""
    global _held
    from threadpoolctl import OpenBLASController, threadpool_limits

    # threadpoolctl lets one thread set OpenBLAS's number, and ignores all others in silence
    release = partial(OpenBLASController.clear_controlling_thread, force=True)
    try:
        if _held is not None:
            release()
            _held.restore_original_limits()
            release()
            _held = None
        smallest = min(_limits, default=None)
        if smallest is None or smallest >= n_threads():
            return True
        held = threadpool_limits(smallest, user_api="blas")
        if n_threads() > smallest:
            return False
        _held = held
        return True
    except Exception:  # whatever a BLAS library raises: the work goes on without a limit
        log.exception("BLAS's threads could not be limited to %s.", min(_limits))
        return False


def blas_by_thread() -> ThreadpoolController:
    """BLAS libraries with a number of threads per thread; `.limit(limits=1)` applies to the thread that enters it."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").select(threading_layer=_COUNT_BY_THREAD)


# Memory of a control group on Linux, in version 2 and version 1: limits, usage, and cached files in memory.stat.
_GROUP_FILES = (
    (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self")
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")  # file systems whose files take memory


def free_memory(*, control_groups: Path = _CONTROL_GROUPS, process: Path = _PROCESS) -> int:
    """Bytes that this process can still take: of the machine, its control groups, and its address space (`ulimit -v`).

    A limit of the process's own group and of every group above it counts: of the container, of the Slurm job, of the
    systemd unit.
    """
    import psutil

    rooms = [int(psutil.virtual_memory().available), address_space()]
    for folder in _own_groups(control_groups, process):
        for limits, usage_name, cache_name in _GROUP_FILES:
            usage = _number(folder / usage_name)
            if usage is None:
                continue
            # the kernel frees cached files on demand
            used = usage - min(usage, _statistic(folder / "memory.stat", cache_name))
            known = [_number(folder / name) for name in limits]
            rooms += [limit - used for limit in known if limit is not None]
    return max(0, min(rooms))


def address_space() -> int:
    """Bytes that this process can still map, memory maps of files included; `sys.maxsize` without a limit."""
    import psutil

    if resource is None:
        return sys.maxsize
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, limit - psutil.Process().memory_info().vms)


def _own_groups(control_groups: Path, process: Path) -> list[Path]:
    """Folders of the memory control groups that this process is in, and of those above them."""
    places = {"memory": [("/", control_groups / "memory")], "": [("/", control_groups)]}
    for root, point, kind, options in _mounts(process):
        if kind == "cgroup2":
            places[""].append((root, Path(point)))
        elif kind == "cgroup" and "memory" in options.split(","):
            places["memory"].append((root, Path(point)))
    found = {place: None for each in places.values() for _, place in each}  # an ordered set
    for line in _lines(process / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        kind = "memory" if "memory" in controllers.split(",") else controllers
        for root, place in places.get(kind, ()):
            # a container without a namespace names its group from the host's root, and mounts it as its own root
            below = group.removeprefix(root) if f"{group}/".startswith(f"{root.rstrip('/')}/") else group
            parts = [part for part in below.split("/") if part not in ("", ".", "..")]
            found |= {place.joinpath(*parts[:depth]): None for depth in range(1, len(parts) + 1)}
    return list(found)


def is_memory(folder: str | Path, *, process: Path = _PROCESS) -> bool:
    """Whether files in a folder take memory, not disk: those of tmpfs and ramfs, such as /dev/shm. False if unknown."""
    whole = os.path.realpath(folder)
    kind = ""
    longest = -1
    for _, point, this, _ in _mounts(process):
        if (
            f"{whole}/".startswith(f"{point.rstrip('/')}/") and len(point) >= longest
        ):  # the last mount hides others
            kind, longest = this, len(point)
    return kind in _IN_MEMORY


def _mounts(process: Path) -> list[tuple[str, str, str, str]]:
    """(root, mount point, kind, options) of the file systems that this process sees; none where that is unknown."""
    found = []
    for line in _lines(process / "mountinfo"):
        place, _, system = line.partition(" - ")
        before, after = place.split(" "), system.split(" ")
        if len(before) >= 5 and len(after) >= 3:
            root, point = (re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), part) for part in before[3:5])
            found.append((root, point, after[0], after[2]))
    return found


def _lines(path: Path) -> list[str]:
    """Lines of a file; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file or it says something else, such as "max"."""
    try:
        number = int("".join(_lines(path)))
    except ValueError:
        return None
    return number if number >= 0 else None


def _statistic(path: Path, name: str) -> int:
    """A number of a file with a name and a number in each line; 0 where there is none."""
    for line in _lines(path):
        found, _, number = line.partition(" ")
        if found == name and number.strip().isdecimal():
            return int(number)
    return 0


# ---------------------------------------------------------------------- arrays in temporary files


def temporary_room() -> int:
    """Bytes that a new temporary file can take."""
    return room_in(tempfile.gettempdir())


def room_in(folder: str) -> int:
    """Bytes that new files in a folder can take; in a folder that is memory (tmpfs) no more than memory has."""
    free = shutil.disk_usage(folder).free
    return min(free, free_memory()) if is_memory(folder) else free


def temporary_array(
    shape: tuple[int, ...], dtype: Any, what: str, advice: str, *, order: Literal["C", "F"] = "C"
) -> np.memmap:
    """An empty array in a temporary file that has no name and is deleted with the array, or with the process.

    Parameters
    ----------
    shape, dtype, order : of the array
    what, advice : for the error: what is stored ("The weights"), and what to do

    Raises
    ------
    ValueError
        The folder for temporary files has no room for it.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    folder, room = tempfile.gettempdir(), temporary_room()
    try:
        if room < n_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(prefix="encoding_nb-") as file:
            reserve(file.fileno(), n_bytes)
            array = np.memmap(file, dtype=dtype, mode="w+", shape=shape, order=order)
    except OSError as error:
        raise ValueError(
            f"{what} take {n_bytes / 1e9:.2g} GB, more than memory has to spare or the folder for temporary files, "
            f"{folder}, can hold ({error.strerror}; {room / 1e9:.2g} GB are free): {advice}."
        ) from error
    log.warning("%s (%.2g GB) are in a temporary file in %s, not in memory.", what, n_bytes / 1e9, folder)
    return array


def reserve(handle: int, n_bytes: int) -> None:
    """Take the blocks of an open file: a process that writes to a map without them is killed when the disk is full.

    Raises
    ------
    OSError
        The disk is full.
    """
    if n_bytes == 0 or not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    try:
        os.posix_fallocate(handle, 0, n_bytes)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # the file system cannot
            raise OSError(error.errno, f"{error.strerror} for {n_bytes / 1e9:.2g} GB") from None


# ---------------------------------------------------------------------- speed


@dataclass(frozen=True)
class Rates:
    """Work per second; a multiply-add counts as two operations.

    Attributes
    ----------
    single, double : operations per second in large float32 and float64 matrix products
    elements : float32 values per second in a sum of squares
    """

    single: float
    double: float
    elements: float


def rates() -> Rates:
    """`Rates` of this machine's processor when it is idle: the best of `MEASUREMENTS`, of about 0.2 s each.

    The first calls measure, and each gives the best so far: one may come while the machine does other things, for
    example while a notebook starts. A number of BLAS threads has its own measurements, so that those during a fit,
    which limits BLAS to one thread, are not used afterwards.
    """
    known = _measured.setdefault(n_threads(), [])
    if len(known) < MEASUREMENTS:
        known.append(_measure())
    return Rates(*(max(getattr(each, f.name) for each in known) for f in fields(Rates)))


def _measure() -> Rates:
    rng = np.random.default_rng(0)
    n = 1024
    A = rng.standard_normal((n, n)).astype(np.float32)
    B = A.astype(float)
    rows = np.resize(A, (4 * n, n))
    return Rates(
        single=2 * n**3 / _seconds(lambda: A @ A),
        double=2 * n**3 / _seconds(lambda: B @ B),
        elements=rows.size / _seconds(lambda: np.vecdot(rows, rows)),
    )


def _seconds(work: Callable[[], Any], *, repeats: int = 3) -> float:
    """The shortest of a few times, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
