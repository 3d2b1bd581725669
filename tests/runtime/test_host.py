from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onnxcomp.runtime import host
from onnxcomp.runtime.host import Host, detect_host, detect_target, parse_cpuinfo

X86 = Host("EPYC", "x86_64", frozenset({"avx2"}), 4, 1 << 34)


def processor(number: int, package: int, core: int) -> str:
    return (
        f"processor\t: {number}\nmodel name\t: Xeon Gold\nphysical id\t: {package}\ncore id\t\t: {core}\n"
        "flags\t\t: fpu avx2 avx512_vnni\npower management:\n"
    )


TWO_PACKAGES_OF_TWO_CORES_WITH_TWO_THREADS = "\n".join(
    processor(number, package=number // 2 % 2, core=number % 2) for number in range(8)
)


def test_two_hyper_threads_of_a_core_count_once() -> None:
    info = parse_cpuinfo(TWO_PACKAGES_OF_TWO_CORES_WITH_TWO_THREADS, usable=set(range(8)))
    assert (info.model, info.physical_cores) == ("Xeon Gold", 4)
    assert info.features == {"fpu", "avx2", "avx512_vnni"}


def test_only_processors_in_the_affinity_mask_count() -> None:
    assert parse_cpuinfo(TWO_PACKAGES_OF_TWO_CORES_WITH_TWO_THREADS, usable={0, 4, 1}).physical_cores == 2


def test_arm_processors_without_core_ids_count_one_each() -> None:
    text = "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\nFeatures\t: fp asimd asimddp\n"
    info = parse_cpuinfo(text, usable={0, 1})
    assert info.physical_cores == 2
    assert "asimddp" in info.features


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_the_quota_of_a_container_bounds_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert host._quota_cores() == cores


def test_the_memory_limit_of_a_container_bounds_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    assert host._memory_bytes() == 1 << 20


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_a_processor_with_integer_dot_products_is_the_target_cpu_vnni(flag: str) -> None:
    assert detect_target(replace(X86, features=X86.features | {flag})) == "cpu-vnni"


def test_other_x86_processors_are_cpu_avx2_and_arm_ones_arm64() -> None:
    assert detect_target(X86) == "cpu-avx2"
    assert detect_target(replace(X86, features=frozenset())) == "cpu-avx2"
    assert detect_target(replace(X86, architecture="arm64")) == "arm64"


def test_this_machine_has_a_name_a_core_and_a_known_target() -> None:
    here = detect_host()
    assert here.cpu
    assert here.physical_cores >= 1
    assert detect_target(here) in ("cpu-vnni", "cpu-avx2", "arm64")
