"""The cache gives back what was stored, and never gets in the way."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from onnxcomp.runtime.cache import Cache, Json, content_key, default_folder

KEY: Json = {"op": "Conv", "shape": [1, 3, 8, 8]}


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_stored_value_is_found_again_by_another_cache_on_the_same_folder(tmp_path: Path) -> None:
    Cache(tmp_path).put("latency", KEY, 1.25)
    assert Cache(tmp_path).get("latency", {"shape": [1, 3, 8, 8], "op": "Conv"}) == 1.25


def test_other_keys_and_other_kinds_are_other_entries(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("latency", KEY, 1.0)
    assert cache.get("latency", {"op": "Conv", "shape": [1, 3, 8, 9]}) is None
    assert cache.get("sensitivity", KEY) is None


def test_the_last_value_stays_and_no_temporary_file_does(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for value in (1.0, 2.0):
        cache.put("latency", KEY, value)
    assert cache.get("latency", KEY) == 2.0
    assert [path.name for path in entries(tmp_path)] == [f"{content_key(KEY)}.json"]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"value": 7}', b'{"key": {"op": "Gemm"}, "value": 7}', b"[" * 100_000]
)
def test_a_damaged_or_foreign_entry_is_ignored_and_can_be_replaced(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    cache.put("latency", KEY, 1.0)
    (path,) = entries(tmp_path)
    path.write_bytes(damage)
    assert cache.get("latency", KEY) is None
    cache.put("latency", KEY, 3.0)
    assert cache.get("latency", KEY) == 3.0


def test_the_folder_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put("latency", KEY, 1.0)
    (path,) = entries(tmp_path)
    path.unlink()
    assert cache.get("latency", KEY) is None
    cache.put("latency", KEY, 1.0)
    assert cache.get("latency", KEY) == 1.0


def test_a_folder_that_can_not_be_written_costs_nothing_but_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cache = Cache(file)
    cache.put("latency", KEY, 1.0)
    assert cache.get("latency", KEY) is None


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    cache = Cache(None)
    cache.put("latency", KEY, 1.0)
    assert cache.get("latency", KEY) is None


def test_a_nan_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Cache(tmp_path).put("latency", KEY, float("nan"))
    assert entries(tmp_path) == []


def test_a_kind_can_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't name a folder"):
        Cache(tmp_path).put("../outside", KEY, 1.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX permissions")
def test_entries_are_for_their_owner_only(tmp_path: Path) -> None:
    Cache(tmp_path / "cache").put("latency", KEY, 1.0)
    (path,) = entries(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


def test_the_environment_chooses_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMP_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("ONNXCOMP_CACHE")
    assert default_folder() == tmp_path / "xdg" / "onnxcomp"


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNXCOMP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    folder = default_folder()
    assert folder is None or (os.path.isabs(folder) and folder.name == "onnxcomp" and "relative" not in folder.parts)


def test_a_machine_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ONNXCOMP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert Cache.default() == Cache(None)
