from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibration_signatures import takes

from onnxcomp.calibration.options import Options
from onnxcomp.calibration.readers import DataKind
from onnxcomp.calibration.spec import Spec, open_spec, parse_spec
from onnxcomp.errors import DataError, UsageError

MODEL = takes(ids=("int64", ("batch", "seq")))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("data.npz", Spec("", "data.npz")),
        ("C:\\data\\a.npz", Spec("", "C:\\data\\a.npz")),
        ("c:/data/a.npz", Spec("", "c:/data/a.npz")),
        ("npz:C:\\data\\a.npz?n=2", Spec("npz", "C:\\data\\a.npz", Options({"n": "2"}))),
        ("./strange:name.npz", Spec("", "./strange:name.npz")),
        ("npz:what?.npz?n=1", Spec("npz", "what?.npz", Options({"n": "1"}))),
        ("npz:a.npz?map=x:input:0&scale=255", Spec("npz", "a.npz", Options({"map": "x:input:0", "scale": "255"}))),
        ("random:64", Spec("random", "64")),
        ("py:reader.py:name", Spec("py", "reader.py:name")),
        ("images:val?labels=name", Spec("images", "val", Options({"labels": "name"}))),
    ],
)
def test_a_spec_is_split_into_kind_path_and_options(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imges:val", r"no kind of data 'imges'\n.*Did you mean images\?"),
        ("http://host/a.npz", r"no kind of data 'http'\n.*Known: images, npz, py, random\."),
        ("npz:a.npz?lables=y", r"npz has no option 'lables'"),
        ("images:a?lables=name", r"images has no option 'lables'\n.*Did you mean labels\?"),
        ("npz:a.npz?crop=224", "npz has no option 'crop'"),
        ("random:64?n=3", r"random has no option 'n'\n.*Known: none"),
        ("npz:a.npz?n=1&n=2", "'n' is given twice"),
        ("npz:a.npz?n=", "'n' has no value"),
        ("npz:a.npz?n", "'n' has no value"),
    ],
)
def test_unknown_kinds_and_options_are_wrong_usage_with_the_nearest_word(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_spec(text)


def test_random_feeds_get_their_shapes_limits_and_seed() -> None:
    reader = open_spec("random:3", MODEL, shapes={"seq": (900,)}, limits={"ids": 5}, seed=1)
    assert (reader.kind, len(reader)) == (DataKind.RANDOM, 3)
    for feed in reader:
        assert feed["ids"].shape == (1, 900)
        assert feed["ids"].max() == 4


@pytest.mark.parametrize("count", ["0", "-3", "many", ""])
def test_a_random_count_is_a_whole_number_above_zero(count: str) -> None:
    with pytest.raises(UsageError, match="not a whole number above zero"):
        open_spec(f"random:{count}", MODEL)


def test_a_path_that_is_not_there_and_a_kind_without_colon_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.npz: no such file"):
        open_spec(str(tmp_path / "none.npz"), MODEL)
    with pytest.raises(DataError, match=r"random: no such file\n.*takes a colon"):
        open_spec("random", MODEL)
    for text in (f"images:{tmp_path}/none", "", "npz:", "\0", "x" * 5000, "npz:~nobody-of-this-name/a.npz"):
        with pytest.raises(DataError, match="no such file"):
            open_spec(text, MODEL)


def test_an_empty_folder_has_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing in it to read"):
        open_spec(str(tmp_path), MODEL)


def test_plain_paths_that_need_a_kind_say_which(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=r"folder of images\n.*images:"):
        open_spec(str(tmp_path), MODEL)
    (tmp_path / "reader.py").write_text("raise SystemExit")
    with pytest.raises(UsageError, match=r"only when asked for\n.*py:"):
        open_spec(f"{tmp_path}/reader.py", MODEL)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UsageError, match=r".csv files are not read"):
        open_spec(f"{tmp_path}/a.csv", MODEL)
    np.savez(tmp_path / "a.npz", ids=np.zeros((2, 3), np.int64))
    with pytest.raises(UsageError, match=r"options need a kind in front\n.*npz:"):
        open_spec(f"{tmp_path}/a.npz?n=1", MODEL)
    assert len(open_spec(f"{tmp_path}/a.npz", MODEL)) == 2


def test_the_name_that_a_report_shows_has_no_folder_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", ids=np.zeros((2, 3), np.int64))
    for text in (f"{tmp_path}/a.npz", f"npz:{tmp_path}/a.npz?n=1"):
        assert open_spec(text, MODEL).name == "a.npz"
    monkeypatch.chdir(tmp_path)
    assert open_spec(".", MODEL).name == tmp_path.name
