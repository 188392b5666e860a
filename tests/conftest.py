"""Makes `cns_core` and `devtools` importable by name while the repository's root stays off sys.path.

On sys.path the root would put this pack's `nodes/` in front of the host's `nodes.py`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _keep_root_off_the_path() -> None:
    # `python -m pytest` puts the current folder in as "", pytest's plugins may add it in full.
    def is_root(entry: str) -> bool:
        return Path(entry or os.getcwd()).resolve() == ROOT

    sys.path[:] = [entry for entry in sys.path if not is_root(entry)]


def _load_package(name: str) -> None:
    folder = ROOT / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not a package: it has no __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_keep_root_off_the_path()
_load_package("cns_core")
_load_package("devtools")
