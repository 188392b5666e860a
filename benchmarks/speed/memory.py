"""The most memory that a block of code uses."""

from __future__ import annotations

import ctypes
import gc
import platform
import threading

import psutil  # comes with ComfyUI
import torch


class PeakMemory:
    """The most memory used within the block beyond what was in use at its start, in MB.

    On a GPU as its allocator counts; else the resident memory of this process, looked at every few
    milliseconds: the system's own high-water mark would still be that of loading the model.
    """

    def __init__(self) -> None:
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.megabytes = 0.0

    def __enter__(self) -> PeakMemory:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            give_back_what_is_free()
            self._before = self._most = psutil.Process().memory_info().rss
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not torch.cuda.is_available():
            self._done.set()
            self._watcher.join()
        self.megabytes = self.so_far()

    def so_far(self) -> float:
        """The most until now beyond what was in use before, in MB."""
        return self.in_all() - self._before / 2**20

    def in_all(self) -> float:
        """The most until now, what was in use before included, in MB."""
        return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self._most) / 2**20

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.003):
            self._most = max(self._most, process.memory_info().rss)


def give_back_what_is_free() -> None:
    """What the C library keeps for later would count as in use before, and hide that much of the peak."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
