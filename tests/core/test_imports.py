"""The core stands without ComfyUI, and the pack loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "nodes",
    "folder_paths",
    "execution",
    "server",
}
CORE = sorted(p for p in (ROOT / "cns_core").glob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(("." * node.level) + (node.module or "").split(".")[0])
    return found


def test_no_core_module_names_the_host():
    assert len(CORE) > 15
    for path in CORE:
        assert not imported(path) & (HOST_MODULES | {".host", "..nodes"}), path


def test_the_core_imports_in_a_python_without_the_host():
    modules = [f"cns_core.{p.stem}" for p in CORE if p.stem != "__init__"]
    code = (
        "import importlib, importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('cns_core', "
        f"{str(ROOT / 'cns_core' / '__init__.py')!r},"
        f" submodule_search_locations=[{str(ROOT / 'cns_core')!r}])\n"
        "core = importlib.util.module_from_spec(spec); sys.modules['cns_core'] = core; "
        "spec.loader.exec_module(core)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "loaded = {m.split('.')[0] for m in sys.modules}\n"
        f"assert not loaded & {HOST_MODULES!r}, loaded\n"
        "assert 'transformers' not in loaded and 'matplotlib' not in loaded\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_host_room_and_the_nodes_import_the_host():
    for path in (ROOT / "nodes").glob("*.py"):
        assert not imported(path) & {"comfy", "folder_paths", "nodes", "execution"}, path
