"""No verb, in no mode, reads weights from where they must not lie; and each reads them from where they may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from hostile import CASES, FEEDS, VALUES, VERBS, Case, command, nested_beyond_protobuf, outside, two_products

WRITES = sorted(v for v in VERBS if not v.startswith(("verify", "bench")))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.onnx"
    path.write_bytes(two_products().SerializeToString())
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=FEEDS)
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*"))


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.says], ids=[n for n, c in CASES.items() if c.says])
@pytest.mark.parametrize("verb", VERBS)
def test_what_must_not_be_read_is_refused_with_exit_code_4_and_leaves_no_file(
    onnxcomp: Run, folder: Path, good: Path, data: Path, verb: str, case: Case
) -> None:
    model = case.write(folder)
    before = names(folder)
    code, text = onnxcomp(*command(verb, model, good, data))
    assert code == 4, text
    assert case.says in text
    assert "'weight'" in text
    assert "Traceback" not in text
    assert names(folder) == before


@pytest.mark.parametrize("verb", VERBS)
def test_nested_subgraphs_deeper_than_protobuf_reads_are_refused(
    onnxcomp: Run, folder: Path, good: Path, data: Path, verb: str
) -> None:
    (folder / "model.onnx").write_bytes(nested_beyond_protobuf())
    code, text = onnxcomp(*command(verb, folder / "model.onnx", good, data))
    assert code == 4, text
    assert "nested too deeply" in text


@pytest.mark.parametrize("verb", VERBS)
def test_a_link_inside_the_folder_is_followed(onnxcomp: Run, folder: Path, good: Path, data: Path, verb: str) -> None:
    code, text = onnxcomp(*command(verb, CASES["symlink inside"].write(folder), good, data))
    assert code == 0, text


def cached(root: Path, data_link: str) -> Path:
    """An entry of a Hugging Face cache; its data file is a link to `data_link`, seen from the snapshot."""
    repository = root / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "da7a").write_bytes((VALUES / 8).tobytes())
    outside(two_products(), blobs / "94a4", location="model.onnx_data")
    (snapshot / "model.onnx").symlink_to("../../blobs/94a4")
    (snapshot / "model.onnx_data").symlink_to(data_link)
    return snapshot / "model.onnx"


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_in_a_hugging_face_cache_is_used_and_its_blobs_are_not_touched(
    onnxcomp: Run, tmp_path: Path, good: Path, data: Path, verb: str
) -> None:
    model = cached(tmp_path, "../../blobs/da7a")
    blobs = {p: p.read_bytes() for p in (tmp_path / "models--org--name" / "blobs").iterdir()}
    code, text = onnxcomp(*command(verb, model, good, data))
    assert code == 0, text
    assert {p: p.read_bytes() for p in (tmp_path / "models--org--name" / "blobs").iterdir()} == blobs
    if verb in WRITES:
        onnx.checker.check_model(onnx.load(model.with_name("model.opt.onnx")))


@pytest.mark.parametrize("link", ["../../../secret", "../../../models--other--name/blobs/da7a", "../../refs"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_cache_entry_whose_data_link_leaves_the_repository_is_refused(
    onnxcomp: Run, tmp_path: Path, good: Path, data: Path, verb: str, link: str
) -> None:
    model = cached(tmp_path, link)
    target = model.parent / link
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((VALUES / 8).tobytes())
    code, text = onnxcomp(*command(verb, model, good, data))
    assert code == 4, text
    assert "leads out" in text
