"""A folder for models on trial: private, and gone whenever an interrupt comes."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from onnxcomp.runtime.source import TemporaryFolder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_private_and_goes_with_what_is_in_it(place: Path) -> None:
    with TemporaryFolder() as name:
        assert Path(name).parent == place
        assert os.stat(name).st_mode & 0o077 == 0
        (Path(name) / "model.onnx").write_bytes(b"x")
    assert list(place.iterdir()) == []


def test_it_goes_with_the_object(place: Path) -> None:
    folder = TemporaryFolder()
    assert len(list(place.iterdir())) == 1
    del folder
    gc.collect()
    assert list(place.iterdir()) == []


def test_an_interrupt_while_it_is_made_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir

    def interrupted(path: str, mode: int = 0o777) -> None:
        make(path, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt) as error:
        TemporaryFolder()
    assert len(list(place.iterdir())) == 1, "the interrupt came too early to prove anything"
    del error
    gc.collect()
    assert list(place.iterdir()) == []


def test_an_interrupt_while_it_is_removed_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = TemporaryFolder()
    with monkeypatch.context() as patch:

        def interrupted(path: str, ignore_errors: bool = False) -> None:
            raise KeyboardInterrupt

        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.cleanup()
    assert len(list(place.iterdir())) == 1
    del folder
    gc.collect()
    assert list(place.iterdir()) == []


def test_a_folder_that_is_there_already_is_left_to_its_owner(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    theirs = place / f"onnxcomp-{'0' * 16}"
    theirs.mkdir()
    with pytest.raises(FileExistsError):
        TemporaryFolder()
    gc.collect()
    assert theirs.is_dir()
