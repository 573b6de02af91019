"""Damaged copies of a file: bytes changed, cut out, repeated, or the end missing."""

import os
import random
import signal
from contextlib import contextmanager

# how many copies of each kind of file; ENCODING_NB_FUZZ asks for more
N_COPIES = int(os.environ.get("ENCODING_NB_FUZZ", "1000"))
SECONDS = 60 + N_COPIES  # for all copies; a reader that hangs fails its test, and does not stop the suite


def damaged(content, rng):
    """One damaged copy of `content`."""
    copy = bytearray(content)
    kind = rng.choice(["change", "change", "change", "cut", "insert", "repeat", "truncate"])
    at = rng.randrange(len(copy))
    length = rng.choice([1, 2, 4, 8, 64])
    if kind == "change":
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            copy[rng.randrange(len(copy))] = rng.choice([0, 255, 128, rng.randrange(256)])
    elif kind == "cut":
        del copy[at : at + length]
    elif kind == "insert":
        copy[at:at] = rng.randbytes(length)
    elif kind == "repeat":
        copy[at:at] = copy[at : at + length * 16]
    else:
        del copy[at:]
    return bytes(copy)


def damaged_copies(content, *, seed, n=None):
    """Damaged copies, the same ones for the same seed."""
    rng = random.Random(seed)
    for _ in range(N_COPIES if n is None else n):
        yield damaged(content, rng)


@contextmanager
def no_hang():
    """A TimeoutError where the block takes far longer than it should."""

    def stop(*_):
        raise TimeoutError("a reader hangs on a damaged file")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
