"""A real ComfyUI with this pack, and the small base's loader, in a process and a base folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from .comfyui_source import check_is_comfyui
from .errors import HostError
from .paths import ROOT, comfyui_directory

PACK_NAME = "ComfyUI-CNS"
# What the server loads beside ComfyUI's own nodes: folder in custom_nodes/ -> where it is.
PACKS = {PACK_NAME: ROOT, "small-base": ROOT / "small_base" / "comfyui_nodes"}
_TAIL_LINES = 40
_BASE_FOLDERS = ("input", "output", "temp", "user", "custom_nodes", "models/checkpoints")
# What a copy of the repository must not drag along; a link has no such trouble.
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "demo_output")


def link_or_copy(source: Path, target: Path, link: bool = True) -> None:
    """Make `target` show `source`, a file or a folder, replacing what is there.

    A symbolic link; a copy where links are not allowed, or with `link=False`.
    """
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
            return
        except OSError:
            pass  # Windows without the right to make links
    if source.is_dir():
        shutil.copytree(source, target, ignore=_NOT_COPIED)
    else:
        shutil.copy2(source, target)


def make_base_directory(base: Path, packs: Mapping[str, Path] = PACKS) -> None:
    """Give `base` the folders that ComfyUI expects, and these packs among its custom nodes."""
    for folder in _BASE_FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, source in packs.items():
        link_or_copy(source, base / "custom_nodes" / name)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HostProcess:
    """Context manager: a running ComfyUI that loads no packs but these.

    `base` is made (or completed) and kept; without one a temporary folder is used and removed. The server
    listens on the loopback interface only. What it prints goes to `log_file`; with `echo`, to our own output.
    """

    def __init__(
        self,
        base: Path | None = None,
        port: int | None = None,
        start_timeout: float = 180.0,
        echo: bool = False,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="cns-host-") if base is None else None
        self.base = Path(self._temporary.name) if self._temporary else Path(base or "").resolve()
        self.port = port or free_port()
        self.log_file = self.base / "host.log"
        self._start_timeout = start_timeout
        self._echo = echo
        self._process: subprocess.Popen[bytes] | None = None
        # Made now, so that models and images can be put in before the start.
        make_base_directory(self.base)

    @property
    def url(self) -> str:
        """The address of the web interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> HostProcess:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers; HostError with the log's end if it dies first."""
        comfyui = comfyui_directory()
        check_is_comfyui(comfyui)
        with contextlib.ExitStack() as stack:
            log = None if self._echo else stack.enter_context(self.log_file.open("wb"))
            self._process = subprocess.Popen(
                self.command(comfyui),
                cwd=comfyui,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._wait_until_it_answers()

    def command(self, comfyui: Path) -> list[str]:
        """The command line of the server."""
        import torch  # here, for the set-up imports this package before torch is installed

        command = [sys.executable, str(comfyui / "main.py")]
        command += ["--base-directory", str(self.base), "--port", str(self.port), "--listen", "127.0.0.1"]
        # In memory, so that several hosts can share one ComfyUI folder and leave nothing in it.
        command += ["--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
        command += ["--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", *PACKS]
        if not torch.cuda.is_available():
            command.append("--cpu")
        return command

    def wait(self) -> int:
        """Wait until the server ends by itself; gives back its exit code."""
        if self._process is None:
            raise HostError("The host was not started; use it in a `with` statement.")
        return self._process.wait()

    def check_alive(self) -> None:
        """Raise HostError with the log's end if the server has ended."""
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            raise HostError(
                f"ComfyUI is not running (exit code {code}). The end of its log:\n{self.log_tail()}"
            )

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        if self._echo or not self.log_file.exists():
            return "(no log)"
        return "\n".join(
            self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        )

    def stop(self) -> None:
        """End the server, gently first, and remove a temporary base folder. May be called twice."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while True:
            self.check_alive()
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise HostError(
                    f"ComfyUI did not answer at {self.url} within {self._start_timeout:.0f} s. "
                    f"The end of its log:\n{self.log_tail()}"
                )
            time.sleep(0.2)
