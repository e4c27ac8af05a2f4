"""Making glibc keep the memory that each training step frees and asks for again."""

from __future__ import annotations

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)

# Parameters of mallopt(3), <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_NEVER_TRIM = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Stop glibc from returning large blocks to the kernel; return whether that worked.

    By default every activation above 32 MB, and smaller ones at first, is a fresh mapping whose
    pages fault in at each step: up to a third of a step's time on a CPU. The process's memory then
    stays at its peak, which training reaches at every step anyway.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: _NEVER_TRIM,
        _M_TOP_PAD: _TOP_PAD_BYTES,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
