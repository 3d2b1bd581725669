"""The house stands as drawn: imports only point down the tower, and each heavy library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnxcomp"
TOWER = (
    "cli",
    "search",
    "driver",
    "recipe",
    "compose",
    "export",
    "recover",
    "passes",
    "refit",
    "evaluate",
    "calibration",
    "runtime",
    "model",
    "ops",
    "report",
    "errors",
)
"""From the roof to the ground; rooms that are not built yet have their place."""

SAME_FLOOR = ({"compose", "export", "recover"},)
HOMES = {"onnxruntime": {"runtime"}, "torch": {"recover", "export"}}
MAX_LINES = 600

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`onnxcomp.passes.base` of onnxcomp/passes/base.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions and for type checkers too; `from a import b`: a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield str(first.value)


def calls_of(path: Path) -> Iterator[ast.Call]:
    """Every call in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(path: Path) -> set[str]:
    """Names of the functions that a file calls by a plain name."""
    return {call.func.id for call in calls_of(path) if isinstance(call.func, ast.Name)}


def room_of(module: str) -> str | None:
    """The room under onnxcomp that a module lies in; None for the package itself and for others."""
    parts = module.split(".")
    return parts[1] if parts[0] == "onnxcomp" and len(parts) > 1 and parts[1] in TOWER else None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down_the_tower(path: Path) -> None:
    room = room_of(name_of(path))
    if room is None:
        return
    for imported in imports_of(path):
        target = room_of(imported)
        if target is None or target == room:
            continue
        assert TOWER.index(room) < TOWER.index(target), f"{name_of(path)} imports {imported}"
        assert not any({room, target} <= floor for floor in SAME_FLOOR), f"{name_of(path)} imports {imported}"


def test_every_room_of_the_package_has_its_place_in_the_tower() -> None:
    rooms = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in MODULES} - {"__init__", "__main__"}
    assert rooms <= set(TOWER)
    assert {"cli", "driver", "passes", "runtime"} <= rooms


def test_families_of_passes_do_not_know_each_other() -> None:
    families = {p.name for p in (PACKAGE / "passes").iterdir() if (p / "__init__.py").exists()}
    assert {"simplify", "quantize"} <= families
    for path in (PACKAGE / "passes").rglob("*.py"):
        own = name_of(path).split(".")[2] if name_of(path).count(".") >= 2 else None
        for imported in imports_of(path):
            parts = imported.split(".")
            if parts[:2] == ["onnxcomp", "passes"] and len(parts) > 2 and parts[2] in families:
                assert parts[2] == own, f"{name_of(path)} imports {imported}"


def test_heavy_libraries_are_imported_in_their_home_only() -> None:
    for path in MODULES:
        roots = {imported.split(".")[0] for imported in imports_of(path)}
        for library, rooms in HOMES.items():
            assert library not in roots or room_of(name_of(path)) in rooms, f"{name_of(path)} imports {library}"


def test_onnxruntime_is_imported_at_all_so_that_the_test_above_has_teeth() -> None:
    assert any("onnxruntime" in set(imports_of(p)) for p in (PACKAGE / "runtime").glob("*.py"))


def test_nothing_is_unpickled_and_no_shell_is_called() -> None:
    for path in MODULES:
        roots = {imported.split(".")[0] for imported in imports_of(path)}
        assert not roots & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, path
        for call in calls_of(path):
            for keyword in call.keywords:
                forbids = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert keyword.arg not in ("allow_pickle", "shell") or forbids, f"{path}:{call.lineno}"


def test_only_the_reader_script_named_by_the_user_is_run_as_code() -> None:
    running = {path.relative_to(PACKAGE).as_posix() for path in MODULES if {"eval", "exec"} & called(path)}
    assert running == {"calibration/script.py"}


def test_the_library_prints_nothing() -> None:
    assert not [path for path in MODULES if "print" in called(path)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_and_is_short_enough_to_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= MAX_LINES
    assert "shared/" not in text, "the project speaks of itself only"


def test_no_module_bears_the_name_of_a_public_function() -> None:
    import onnxcomp

    assert not {p.stem for p in PACKAGE.glob("*.py")} & set(onnxcomp.__all__)
    assert not {p.name for p in PACKAGE.iterdir() if p.is_dir()} & set(onnxcomp.__all__)
