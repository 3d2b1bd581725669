from __future__ import annotations

import os
import subprocess
import sys

import pytest

from onnxcomp.errors import UnavailableError
from onnxcomp.runtime import library

IN_A_NEW_PROCESS = """
import os, sys, types
fake = types.ModuleType("onnxruntime")
fake.InferenceSession = object
fake.set_default_logger_severity = lambda level: print("severity", level)
fake.disable_telemetry_events = lambda: print("telemetry stopped")
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("variable at import", os.environ.get("ORT_DISABLE_TELEMETRY"))
            import importlib.machinery
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec): return fake
    def exec_module(self, module): pass
sys.meta_path.insert(0, Finder())
{before}
from onnxcomp.runtime import library
print("imported", "onnxruntime" in sys.modules)
library.onnxruntime()
"""


def lines(before: str = "") -> list[str]:
    env = {**os.environ, "ORT_DISABLE_TELEMETRY": "0", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    script = IN_A_NEW_PROCESS.format(before=before)
    return subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    ).stdout.split("\n")[:-1]


def test_telemetry_is_off_in_the_environment_before_onnxruntime_is_imported_even_where_the_user_had_set_it_on() -> None:
    assert lines() == ["imported False", "variable at import 1", "severity 3"]


def test_telemetry_is_stopped_where_the_process_had_imported_onnxruntime_before_us() -> None:
    assert lines(before="import onnxruntime")[1:] == ["imported True", "telemetry stopped", "severity 3"]


def test_the_real_library_is_imported_once_and_tells_its_version() -> None:
    assert library.onnxruntime() is library.onnxruntime()
    assert library.version() == library.onnxruntime().__version__


def test_a_missing_onnxruntime_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library.onnxruntime.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match=r'pip install "onnxcomp\[cpu\]"'):
        library.onnxruntime()
