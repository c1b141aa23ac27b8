"""glibc's allocator, set for a process that moves large buffers between threads."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

KEPT_BYTES = 256 << 20
MAPPED_ABOVE_BYTES = 32 << 20


def keep_freed_memory() -> None:
    """Has freed buffers reused instead of given back to the kernel and taken again, page by page.

    gRPC allocates a message in one thread and Python frees it in another. With glibc's defaults every chunk of 1 MiB
    then costs its page faults anew, and each thread's arena keeps memory of its own: in a round of 8 clients × 10 MB a
    fifth of all CPU time, at 32 clients a third of the coordinator's memory (docs/benchmarks.md). Small networks pay it
    for the tensors of every step: a simulation of CIFAR-10 takes a sixth less time without. Does nothing where the C
    library is another one. Call it before threads are started.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
