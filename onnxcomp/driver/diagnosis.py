"""The job behind `doctor`: this machine and its packages, read from their metadata; only ONNX Runtime is loaded."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from onnxcomp import __version__
from onnxcomp.errors import OnnxcompError, UnavailableError
from onnxcomp.report.diagnosis import Check, Diagnosis
from onnxcomp.report.figures import size
from onnxcomp.report.text import plural
from onnxcomp.runtime import providers
from onnxcomp.runtime.cache import default_folder
from onnxcomp.runtime.gpu import gpus
from onnxcomp.runtime.host import detect_host, detect_target
from onnxcomp.runtime.library import onnxruntime
from onnxcomp.runtime.packages import copies, installed, runtime_wheels

OLDEST_PYTHON = (3, 11)
OLDEST: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "onnx": ("1.19", (1, 19)),
    "onnx-ir": ("1.1", (1, 1)),
    "numpy": ("2", (2,)),
    "pydantic": ("2.11", (2, 11)),
    "protobuf": ("4.25", (4, 25)),
}
"""Packages that everything needs, with the oldest version that will do."""

OLDEST_RUNTIME = (1, 24)
TOO_NEW = 2
"""First major version of onnx-ir whose interface is another one."""

EXTRAS: Mapping[str, str] = {
    "torch": "exporting from PyTorch and recovering accuracy",
    "pillow": "calibration from folders of images",
}
"""Optional packages, and what for."""

FEATURES: tuple[tuple[str, frozenset[str]], ...] = (
    ("AVX2", frozenset({"avx2"})),
    ("AVX-512", frozenset({"avx512f"})),
    ("VNNI", frozenset({"avx512_vnni", "avx512vnni", "avx_vnni", "avxvnni"})),
    ("AMX int8", frozenset({"amx_int8"})),
    ("AVX-512 bf16", frozenset({"avx512_bf16"})),
    ("AVX-512 fp16", frozenset({"avx512_fp16"})),
    ("NEON", frozenset({"asimd"})),
    ("NEON dot product", frozenset({"asimddp"})),
    ("NEON fp16", frozenset({"asimdhp"})),
    ("I8MM", frozenset({"i8mm"})),
    ("SVE", frozenset({"sve"})),
)
"""What kernels of ONNX Runtime are made for, and the flags that tell of it in Linux spelling."""

LEAST_MEMORY = 2_000_000_000


def doctor() -> Diagnosis:
    """Versions, providers, processor, memory, GPU, cache, conflicts; each with what to do if something is wrong."""
    checks = [check for section in SECTIONS for check in section()]
    broken = any(check.status == "problem" for check in checks)
    return Diagnosis(
        version=__version__,
        exit_code=UnavailableError.exit_code if broken else 0,
        target=detect_target(detect_host()),
        providers=_providers(),
        checks=tuple(checks),
    )


def _python() -> Iterator[Check]:
    yield Check(name="onnxcomp", status="ok", found=__version__)
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Check(name="Python", status="problem", found=found, advice="install Python 3.11 or newer")
    else:
        yield Check(name="Python", status="ok", found=found)


def _packages() -> Iterator[Check]:
    found = installed(OLDEST)
    for name, (text, oldest) in OLDEST.items():
        version = found.get(name)
        if version is None:
            yield Check(name=name, status="problem", found="not installed", advice=f'pip install "{name}>={text}"')
        elif _numbers(version) < oldest:
            yield Check(name=name, status="problem", found=version, advice=f'pip install -U "{name}>={text}"')
        elif name == "onnx-ir" and _numbers(version)[:1] >= (TOO_NEW,):
            yield Check(name=name, status="problem", found=version, advice='pip install "onnx-ir>=1.1,<2"')
        else:
            yield _once(name, version)


def _once(name: str, version: str) -> Check:
    """One package, installed once on the path."""
    versions = copies(name)
    if len(set(versions)) > 1:
        advice = f"pip uninstall {name} until none is left, then install it once"
        return Check(name=name, status="warning", found=f"installed as {', '.join(versions)}", advice=advice)
    return Check(name=name, status="ok", found=version)


def _protobuf() -> Iterator[Check]:
    """The pure Python parser is ten times as slow as the one in C, and its limits are others."""
    chosen = os.environ.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION")
    if chosen == "python":
        advice = "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
        yield Check(name="protobuf parser", status="warning", found="pure Python, which is slow", advice=advice)
    try:
        import onnx  # noqa: F401  # what fails where protobuf is older than the code that it generated
    except Exception as error:  # protobuf raises TypeError, onnx ImportError
        advice = "pip install -U onnx protobuf"
        yield Check(name="onnx loads", status="problem", found=_one_line(error), advice=advice)


def _runtime() -> Iterator[Check]:
    wheels = runtime_wheels()
    if not wheels:
        advice = 'pip install "onnxcomp[cpu]", or "onnxcomp[gpu]" for CUDA'
        yield Check(name="onnxruntime", status="problem", found="not installed", advice=advice)
        return
    told = ", ".join(f"{name} {version}" for name, version in wheels.items())
    if len(wheels) > 1:
        advice = f"they share a folder: pip uninstall {' '.join(wheels)}, then install one of them"
        yield Check(name="onnxruntime", status="problem", found=f"{told}: in conflict", advice=advice)
    elif _numbers(next(iter(wheels.values()))) < OLDEST_RUNTIME:
        advice = f'pip install -U "{next(iter(wheels))}>=1.24"'
        yield Check(name="onnxruntime", status="problem", found=f"{told}, older than 1.24", advice=advice)
    else:
        yield Check(name="onnxruntime", status="ok", found=told)
    try:
        ort = onnxruntime()
    except OnnxcompError as error:
        yield Check(name="it loads", status="problem", found=error.message, advice=error.hint or "")
        return
    declared, loaded = set(wheels.values()), str(ort.__version__)
    if loaded not in declared and not any(v.startswith(loaded) or loaded.startswith(v) for v in declared):
        advice = f"pip uninstall {' '.join(wheels)}, then install one of them again"
        found = f"{loaded}, while its metadata says {', '.join(sorted(declared))}"
        yield Check(name="it loads as", status="problem", found=found, advice=advice)
    yield Check(name="providers", status="ok", found=", ".join(ort.get_available_providers()))
    yield Check(name="telemetry", status="ok", found="off (ORT_DISABLE_TELEMETRY=1 is set before it loads)")


def _conflicts() -> Iterator[Check]:
    tools = installed(["onnxruntime-tools"])
    if tools:
        yield Check(
            name="onnxruntime-tools",
            status="warning",
            found=f"{tools['onnxruntime-tools']}: deprecated since 2021, and breaks onnxruntime.transformers",
            advice="pip uninstall onnxruntime-tools",
        )
    if "PYTHONOPTIMIZE" in os.environ:
        yield Check(name="PYTHONOPTIMIZE", status="warning", found="set: checks are left out", advice="unset it")


def _extras() -> Iterator[Check]:
    found = installed(EXTRAS)
    for name, purpose in EXTRAS.items():
        yield Check(name=name, status="ok", found=found.get(name, f"not installed; only needed for {purpose}"))


def _machine() -> Iterator[Check]:
    host = detect_host()
    yield Check(name="CPU", status="ok", found=f"{host.cpu}, {host.architecture}")
    has = [name for name, flags in FEATURES if host.features & flags]
    target = detect_target(host)
    if not host.features:
        advice = f"name the machine with --target; {target} is assumed"
        yield Check(name="CPU features", status="warning", found="the system does not tell", advice=advice)
    else:
        yield Check(name="CPU features", status="ok", found=", ".join(has) or "none that kernels are made for")
    slow = target == "cpu-avx2" and host.features
    told = f"{target} (what --target auto means here)"
    advice = "no VNNI: INT8 gains less here, and its scales keep neighbouring weights small"
    yield Check(name="target", status="ok", found=f"{told}; {advice}" if slow else told)
    cores = f"{host.physical_cores} physical usable, {os.cpu_count() or 1} logical in the machine"
    yield Check(name="cores", status="ok", found=cores)
    if not host.memory_bytes:
        yield Check(name="memory", status="ok", found="the system does not tell")
    elif host.memory_bytes < LEAST_MEMORY:
        advice = "small models only; the child process that first loads a model may not start"
        yield Check(name="memory", status="warning", found=_gigabytes(host.memory_bytes), advice=advice)
    else:
        yield Check(name="memory", status="ok", found=_gigabytes(host.memory_bytes))


def _gpu() -> Iterator[Check]:
    found = gpus()
    if found is None:
        yield Check(name="GPU", status="ok", found="none that nvidia-smi knows")
        return
    if "cuda" in _providers():
        yield Check(name="GPU", status="ok", found="; ".join(found))
    else:
        advice = 'for --ep cuda: pip uninstall onnxruntime && pip install "onnxcomp[gpu]"'
        told = f"{'; '.join(found)}; the installed ONNX Runtime does not use it"
        yield Check(name="GPU", status="warning", found=told, advice=advice)


def _cache() -> Iterator[Check]:
    folder = default_folder()
    if folder is None:
        yield Check(name="cache", status="warning", found="no home folder", advice="set ONNXCOMP_CACHE to keep answers")
        return
    if not folder.is_dir():
        yield Check(name="cache", status="ok", found=f"{folder} (not made yet)")
        return
    files = [p for p in folder.rglob("*") if p.is_file()]
    told = f"{folder}: {plural(len(files), 'file')}, {size(sum(map(_bytes, files)))}; safe to delete"
    if os.access(folder, os.W_OK):
        yield Check(name="cache", status="ok", found=told)
    else:
        yield Check(name="cache", status="warning", found=f"{told}; read-only", advice="set ONNXCOMP_CACHE elsewhere")


def _providers() -> tuple[str, ...]:
    try:
        return providers.available()
    except OnnxcompError:
        return ()


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted meanwhile
        return 0


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> _numbers("1.24.1rc1")
    (1, 24, 1)
    """
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


SECTIONS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _packages,
    _protobuf,
    _runtime,
    _conflicts,
    _extras,
    _machine,
    _gpu,
    _cache,
)
