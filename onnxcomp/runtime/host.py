"""The machine we are on: processor, features, physical cores and memory, as far as this process may use them."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HostTarget = Literal["cpu-vnni", "cpu-avx2", "arm64"]

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}
_INT8_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx512vnni", "avx_vnni", "avxvnni", "amx_int8"})
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Host:
    """The facts of a machine that decide what runs fast on it.

    Args:
        cpu: Model name, as the system gives it.
        architecture: `x86_64`, `arm64`, or what the system says.
        features: Instruction set flags in Linux spelling (`avx2`, `avx512_vnni`); empty where the system hides them.
        physical_cores: Cores that this process may use, by its affinity and the container's quota; hyper-threads don't
            count.
        memory_bytes: Memory that this process may use; 0 when the system does not tell.
    """

    cpu: str
    architecture: str
    features: frozenset[str]
    physical_cores: int
    memory_bytes: int


@dataclass(frozen=True)
class CpuInfo:
    """What `/proc/cpuinfo` says about the usable processors."""

    model: str
    features: frozenset[str]
    physical_cores: int


@functools.cache
def detect_host() -> Host:
    """Reads the facts of this machine, once."""
    architecture = platform.machine().lower()
    info = _cpu_info()
    return Host(
        cpu=info.model or platform.processor() or architecture,
        architecture=_ARCHITECTURES.get(architecture, architecture),
        features=info.features,
        physical_cores=max(1, min(info.physical_cores, _quota_cores())),
        memory_bytes=_memory_bytes(),
    )


def detect_target(host: Host) -> HostTarget:
    """The CPU target whose facts hold on this host; the most careful x86 one when its features are unknown.

    >>> detect_target(Host("EPYC", "x86_64", frozenset({"avx2", "avx512_vnni"}), 8, 1 << 34))
    'cpu-vnni'
    """
    if host.architecture == "arm64":
        return "arm64"
    return "cpu-vnni" if host.features & _INT8_DOT_PRODUCTS else "cpu-avx2"


def parse_cpuinfo(text: str, usable: Set[int]) -> CpuInfo:
    """Reads `/proc/cpuinfo`, one paragraph for each logical processor.

    Args:
        text: The file.
        usable: Logical processors that the process may run on.
    """
    processors = [block for block in _blocks(text) if int(block.get("processor", "-1")) in usable]
    first = processors[0] if processors else {}
    # Arm kernels give no core ids, and hyper-threads are rare there: each processor counts.
    cores = {(b.get("physical id", "0"), b.get("core id", f"cpu{b['processor']}")) for b in processors}
    flags = first.get("flags") or first.get("Features") or ""
    return CpuInfo(first.get("model name", ""), frozenset(flags.split()), len(cores))


def _blocks(text: str) -> Iterator[dict[str, str]]:
    for paragraph in text.split("\n\n"):
        lines = (line.partition(":") for line in paragraph.splitlines())
        yield {key.strip(): value.strip() for key, _, value in lines}


def _cpu_info() -> CpuInfo:
    logical = os.cpu_count() or 1
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(logical))
    info = parse_cpuinfo(_read(Path("/proc/cpuinfo")), usable)
    return info if info.physical_cores else CpuInfo("", frozenset(), len(usable))


def _quota_cores() -> int:
    """Whole cores that the container's CPU quota pays for (cgroup v2, then v1), at least 1."""
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if not period:
        quota, period = _read(_CGROUP / "cpu/cpu.cfs_quota_us"), _read(_CGROUP / "cpu/cpu.cfs_period_us")
    if not _is_count(quota) or not _is_count(period):
        return os.cpu_count() or 1
    return max(1, math.floor(int(quota) / int(period)))


def _memory_bytes() -> int:
    limits = [_read(_CGROUP / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    known = [int(limit) for limit in limits if _is_count(limit)]
    names = getattr(os, "sysconf_names", {})
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(known, default=0)


def _is_count(text: str) -> bool:
    """True for a positive number; cgroups write `max` or -1 for no limit."""
    return text.strip().isdigit() and int(text) > 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
