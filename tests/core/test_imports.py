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
CORE = sorted(p for p in (ROOT / "cns_core").rglob("*.py") if "host" not in p.parent.parts)
PACK = [ROOT / "__init__.py", *(ROOT / "cns_core").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(("." * node.level) + (node.module or "").split(".")[0])
    return found


def test_no_core_module_names_the_host():
    assert len(CORE) > 30
    for path in CORE:
        found = {name.lstrip(".") for name in imported(path)}
        assert not found & (HOST_MODULES | {"host"}), path


def test_the_core_imports_in_a_python_without_the_host():
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in CORE]
    modules = [name.removesuffix(".__init__") for name in names]
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


def test_nodes_reach_the_host_through_its_package_alone():
    for path in (ROOT / "nodes").glob("*.py"):
        assert not imported(path) & {"comfy", "folder_paths", "nodes", "execution"}, path


def test_no_function_takes_more_than_seven_parameters():
    """But for `execute`, whose parameters are a node's sockets."""
    for path in PACK:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name != "execute":
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                assert len([n for n in names if n not in ("self", "cls")]) <= 7, (path, node.name, names)
