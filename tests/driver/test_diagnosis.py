"""`doctor`: each trouble that it knows, with what to do; and a sound machine passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import onnxcomp
from onnxcomp.driver import diagnosis
from onnxcomp.errors import UnavailableError
from onnxcomp.report.diagnosis import Check, Diagnosis
from onnxcomp.runtime import gpu, packages
from onnxcomp.runtime.host import Host


def of(found: Diagnosis, name: str) -> Check:
    return next(check for check in found.checks if check.name == name)


def wheels(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    named = {name.replace("_", "-"): version for name, version in found.items()}
    monkeypatch.setattr(diagnosis, "runtime_wheels", lambda: named)


def test_this_machine_is_ready_and_its_checks_have_different_names() -> None:
    found = onnxcomp.doctor()
    assert found.exit_code == 0, [c for c in found.checks if c.status == "problem"]
    assert "cpu" in found.providers
    assert of(found, "telemetry").found.startswith("off")
    names = [check.name for check in found.checks]
    assert len(names) == len(set(names))
    assert Diagnosis.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_every_trouble_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        diagnosis, "installed", lambda names: {"onnxruntime-tools": "1.7.0"} if "onnxruntime-tools" in names else {}
    )
    wheels(monkeypatch)
    found = onnxcomp.doctor()
    assert found.exit_code == 3
    assert all(check.advice for check in found.checks if check.status != "ok")
    assert of(found, "onnx").advice == 'pip install "onnx>=1.19"'
    assert "onnxcomp[cpu]" in of(found, "onnxruntime").advice
    assert of(found, "onnxruntime-tools").status == "warning"
    assert "deprecated since 2021" in of(found, "onnxruntime-tools").found


def test_two_wheels_of_onnxruntime_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.30.0")
    found = onnxcomp.doctor()
    assert found.exit_code == 3
    check = of(found, "onnxruntime")
    assert check.found == "onnxruntime 1.31.1, onnxruntime-gpu 1.30.0: in conflict"
    assert "pip uninstall onnxruntime onnxruntime-gpu" in check.advice


def test_an_old_onnxruntime_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels(monkeypatch, onnxruntime="1.18.1")
    check = of(onnxcomp.doctor(), "onnxruntime")
    assert (check.status, check.advice) == ("problem", 'pip install -U "onnxruntime>=1.24"')


def test_a_runtime_that_is_another_than_its_metadata_says_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels(monkeypatch, onnxruntime="1.25.0")
    assert "while its metadata says 1.25.0" in of(onnxcomp.doctor(), "it loads as").found


def test_a_runtime_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise UnavailableError("ONNX Runtime is installed only in part", hint="install it again")

    monkeypatch.setattr(diagnosis, "onnxruntime", broken)
    monkeypatch.setattr("onnxcomp.runtime.providers.onnxruntime", broken)
    found = onnxcomp.doctor()
    assert (found.exit_code, found.providers) == (3, ())
    assert of(found, "it loads").advice == "install it again"


def test_a_gpu_that_nothing_uses_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "gpus", lambda: ("NVIDIA H100, 550.54, 81559 MiB",))
    monkeypatch.setattr(diagnosis, "_providers", lambda: ("cpu",))
    check = of(onnxcomp.doctor(), "GPU")
    assert (check.status, "onnxcomp[gpu]" in check.advice) == ("warning", True)


def test_gpus_are_what_nvidia_smi_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.gpus() is None
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 550.54, 81559 MiB'\n")
    tool.chmod(0o755)
    assert gpu.gpus() == ("NVIDIA H100, 550.54, 81559 MiB",)
    tool.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert gpu.gpus() is None


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"avx2", "avx512f", "avx512_vnni", "amx_int8"}, "AVX2, AVX-512, VNNI, AMX int8"),
        ({"asimd", "asimddp"}, "NEON, NEON dot product"),
        ({"sse2"}, "none that kernels are made for"),
    ],
)
def test_cpu_features_by_the_names_that_people_use(
    features: set[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host("a CPU", "x86_64", frozenset(features), 4, 1 << 34)
    monkeypatch.setattr(diagnosis, "detect_host", lambda: host)
    assert of(onnxcomp.doctor(), "CPU features").found == told


def test_the_cache_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXCOMP_CACHE", str(tmp_path / "cache"))
    assert of(onnxcomp.doctor(), "cache").found.endswith("(not made yet)")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "entry.json").write_bytes(bytes(2000))
    assert "1 file, 2.0 kB" in of(onnxcomp.doctor(), "cache").found


def test_a_package_that_is_on_the_path_twice_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        meta = tmp_path / version / "twice-1.dist-info"
        meta.mkdir(parents=True)
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twice\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / version))
    assert packages.copies("twice") == ["2.0", "1.0"]
    assert packages.installed(["twice", "nowhere-at-all"]) == {"twice": "2.0"}


def test_a_machine_without_onnx_still_gets_its_diagnosis() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; sys.modules['onnx_ir'] = None; sys.modules['onnxruntime'] = None\n"
        "from onnxcomp.cli.main import run; sys.exit(run(['doctor', '--format', 'json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    found = Diagnosis.model_validate_json(done.stdout)
    assert of(found, "onnx loads").status == of(found, "it loads").status == "problem"
    assert "Traceback" not in done.stderr
