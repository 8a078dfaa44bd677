"""What a repository does, wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.bundle import Bundle
from exporter.errors import ConflictError, ValidationFailedError
from exporter.interface import Interface, Tensor
from tests.support.bundles import INTERFACE, make_bundle
from tests.support.repository_shelves import Shelf, local_shelf, object_shelf, served


@pytest.fixture(params=["local", "object"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    if request.param == "local":
        with local_shelf(tmp_path) as shelf:
            yield shelf
    else:
        with object_shelf(request.getfixturevalue("s3")) as shelf:
            yield shelf


def export(shelf: Shelf, bundle: Bundle, beside: tuple[int, ...] = ()) -> None:
    shelf.repository.publish(bundle, shelf.work)
    shelf.repository.activate(bundle, beside, shelf.work)


def test_a_new_model(shelf: Shelf, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    repository = shelf.repository
    assert (repository.bundle("net", 1), repository.versions("net")) == (None, ())
    export(shelf, bundle)
    assert {name: content for name, content in shelf.content().items() if "/1/" in name} == {
        f"net/1/{name}": (bundle.path / name).read_bytes()
        for name in (
            "config.pbtxt",
            "manifest.json",
            "model.onnx",
            "report.json",
            "warmup/00000000.bin",
        )
    }
    assert set(shelf.content()) - {name for name in shelf.content() if "/1/" in name} == {
        "net/config.pbtxt",
        "net/warmup/00000000.bin",
    }
    assert repository.is_serving(bundle)
    assert (repository.versions("net"), repository.served_versions("net")) == ((1,), (1,))
    before = shelf.content()
    assert repository.publish(bundle, shelf.work) is None
    assert shelf.content() == before


def test_what_is_published_is_found_again(shelf: Shelf, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    export(shelf, bundle)
    found = shelf.repository.bundle("net", 1)
    assert found is not None
    assert (found.sha256, found.config) == (bundle.sha256, bundle.config)
    assert found.passed_report() == bundle.passed_report()
    shelf.repository.verify(found)
    whole = shelf.repository.fetch(found, tmp_path / "fetched")
    whole.verify()
    assert (whole.path / "model.onnx").read_bytes() == b"weights"
    assert whole.passed_report() is not None


def test_it_has_a_name_that_stays(shelf: Shelf) -> None:
    name = shelf.repository.identity()
    assert len(name) == 32
    assert shelf.repository.identity() == name


def test_publishing_alone_serves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2)
    export(shelf, first)
    before = shelf.content()["net/config.pbtxt"]
    assert shelf.repository.publish(second, shelf.work) is not None
    assert shelf.content()["net/config.pbtxt"] == before
    repository = shelf.repository
    assert (repository.is_serving(first), repository.is_serving(second)) == (True, False)


def test_what_the_manifest_does_not_name_is_not_published(shelf: Shelf, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "libtriton_onnxruntime.so").write_bytes(b"\x7fELF")
    (bundle.path / "model.py").write_text("raise SystemExit")
    export(shelf, bundle)
    assert not [name for name in shelf.content() if name.endswith((".so", ".py"))]


def test_switching_and_going_back(shelf: Shelf, tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    repository = shelf.repository
    export(shelf, first)
    before = shelf.content()
    publication = repository.publish(second, shelf.work)
    assert publication is not None
    kept = repository.activate(second, [], shelf.work)
    assert served(shelf) == [2]
    assert repository.is_serving(second)
    repository.unpublish(second, publication, shelf.work)
    assert repository.is_serving(second), "what the live config names stays"
    repository.restore_config("net", kept)
    assert served(shelf) == [1]
    repository.unpublish(second, publication, shelf.work)
    assert shelf.content() == before


def test_the_same_config_is_not_written_again(shelf: Shelf, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    export(shelf, bundle)
    kept = shelf.repository.activate(bundle, [], shelf.work)
    assert kept is not None
    assert kept.read_bytes() == shelf.content()["net/config.pbtxt"]


def test_a_new_model_that_is_taken_back_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    bundle, repository = make_bundle(tmp_path), shelf.repository
    publication = repository.publish(bundle, shelf.work)
    assert publication is not None
    assert publication.is_new_model
    repository.activate(bundle, [], shelf.work)
    repository.restore_config("net", None)
    repository.unpublish(bundle, publication, shelf.work)
    assert shelf.content() == {}


def test_a_shared_warmup_file_survives_a_withdrawal(shelf: Shelf, tmp_path: Path) -> None:
    export(shelf, make_bundle(tmp_path))
    before = shelf.content()
    shared, own = make_bundle(tmp_path, 2), make_bundle(tmp_path, 3, warmup=b"\1" * 16)
    for bundle in (shared, own):
        publication = shelf.repository.publish(bundle, shelf.work)
        assert publication is not None
        shelf.repository.unpublish(bundle, publication, shelf.work)
    assert shelf.content() == before


def test_two_versions_are_served_side_by_side(shelf: Shelf, tmp_path: Path) -> None:
    # Other warm-up data, so that the two configs differ.
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    export(shelf, first)
    export(shelf, second, (1,))
    assert served(shelf) == [1, 2]
    assert shelf.repository.is_serving(first)
    assert shelf.repository.is_serving(second)


def test_other_interfaces_cannot_be_served_together(shelf: Shelf, tmp_path: Path) -> None:
    wider = Interface((Tensor("x", "FP32", ("n", 5)),), INTERFACE.outputs)
    first, second = make_bundle(tmp_path), make_bundle(tmp_path, 2, interface=wider)
    export(shelf, first)
    shelf.repository.merged_config(second, [])
    with pytest.raises(ConflictError, match=r"version 1 .* its interface differs"):
        shelf.repository.merged_config(second, [1])
    with pytest.raises(ConflictError):
        shelf.repository.activate(second, [1], shelf.work)
    assert served(shelf) == [1]


def test_a_served_version_is_never_overwritten(shelf: Shelf, tmp_path: Path) -> None:
    export(shelf, make_bundle(tmp_path))
    before = shelf.content()
    with pytest.raises(ConflictError, match="never overwritten"):
        shelf.repository.publish(make_bundle(tmp_path, weights=b"others"), shelf.work)
    assert shelf.content() == before


def test_a_version_that_is_not_served_makes_way(shelf: Shelf, tmp_path: Path) -> None:
    export(shelf, make_bundle(tmp_path))
    shelf.repository.publish(make_bundle(tmp_path, 2, weights=b"old"), shelf.work)
    again = make_bundle(tmp_path, 2, weights=b"new", warmup=b"\1" * 16)
    assert shelf.repository.publish(again, shelf.work) is not None
    assert shelf.content()["net/2/model.onnx"] == b"new"
    shelf.repository.verify(again)


def test_a_served_version_that_was_harmed_is_mended(shelf: Shelf, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    export(shelf, bundle)
    before = shelf.content()
    shelf.put("net/1/model.onnx", b"damage!")
    shelf.put("net/1/other.bin", b"more")
    shelf.put("net/warmup/00000000.bin", b"")
    assert not shelf.repository.is_serving(bundle)
    assert shelf.repository.publish(bundle, shelf.work) is None, "nothing to take back"
    assert shelf.content() == before
    assert shelf.repository.is_serving(bundle)


def test_a_file_that_is_cut_short_is_healed_by_the_same_export(
    shelf: Shelf, tmp_path: Path
) -> None:
    kept = make_bundle(tmp_path, 2, warmup=b"\1" * 16)
    bundle = make_bundle(tmp_path)
    shelf.repository.publish(kept, shelf.work)
    export(shelf, kept)
    export(shelf, bundle, (2,))
    before = shelf.content()
    for name in before:
        if name.startswith("net/2/") or name == "net/warmup/01010101.bin":
            continue  # the other version's
        for size in (0, len(before[name]) - 1):
            shelf.put(name, before[name][:size])
            beside = {1, 2} & set(shelf.repository.possibly_served("net")) - {1}
            assert beside == {2}, (name, size)
            assert shelf.repository.publish(bundle, shelf.work) is None, (name, size)
            shelf.repository.activate(bundle, beside, shelf.work)
            assert shelf.content() == before, (name, size)
            assert shelf.repository.is_serving(bundle)
            assert shelf.repository.is_serving(kept)


def test_another_bundle_without_its_manifest_is_not_replaced(shelf: Shelf, tmp_path: Path) -> None:
    export(shelf, make_bundle(tmp_path, weights=b"others"))
    shelf.put("net/1/manifest.json", b"")
    before = shelf.content()
    for config in (before["net/config.pbtxt"], b""):
        shelf.put("net/config.pbtxt", config)
        with pytest.raises(ConflictError, match="never overwritten"):
            shelf.repository.publish(make_bundle(tmp_path), shelf.work)
    assert {**shelf.content(), "net/config.pbtxt": b""} == {**before, "net/config.pbtxt": b""}


@pytest.mark.parametrize("what", ["version", "policy", "code"])
def test_what_others_made_is_left_alone(shelf: Shelf, tmp_path: Path, what: str) -> None:
    bundle = make_bundle(tmp_path)
    if what == "version":
        shelf.put("net/3/model.onnx", b"theirs")
    else:
        export(shelf, bundle)
        if what == "policy":
            shelf.put("net/config.pbtxt", b'backend: "onnxruntime"')
        else:
            shelf.put("net/libtriton_onnxruntime.so", b"\x7fELF")
    before = shelf.content()
    with pytest.raises(ConflictError, match="stlab did not create"):
        shelf.repository.publish(make_bundle(tmp_path, 2), shelf.work)
    assert not shelf.repository.is_serving(bundle)
    assert shelf.content() == before


@pytest.mark.parametrize("harm", ["model", "warmup", "emptied", "added", "config", "versions"])
def test_what_was_harmed_is_not_served(shelf: Shelf, tmp_path: Path, harm: str) -> None:
    bundle = make_bundle(tmp_path)
    export(shelf, bundle)
    config = shelf.content()["net/config.pbtxt"]
    if harm == "model":
        shelf.put("net/1/model.onnx", b"WEIGHTS")
    elif harm == "warmup":
        shelf.delete("net/warmup/00000000.bin")
    elif harm == "emptied":
        shelf.put("net/warmup/00000000.bin", b"")
    elif harm == "added":
        shelf.put("net/1/libtriton_onnxruntime.so", b"\x7fELF")
    elif harm == "config":
        shelf.put("net/config.pbtxt", config.replace(b"count: 1\n", b"count: 2\n", 1))
    else:
        shelf.put("net/config.pbtxt", config.replace(b"versions: 1", b"versions: 2"))
    assert not shelf.repository.is_serving(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "config.pbtxt", "manifest.json"])
def test_one_byte_is_found(shelf: Shelf, tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path)
    export(shelf, bundle)
    sound = shelf.content()[f"net/1/{name}"]
    for at in (0, len(sound) // 2, len(sound) - 1):
        shelf.put(f"net/1/{name}", sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(
            ValidationFailedError, match=f": {name} is not the file that was proven"
        ):
            shelf.repository.verify(bundle)
    for cut in (sound[:-1], sound + b"\n"):
        shelf.put(f"net/1/{name}", cut)
        with pytest.raises(
            ValidationFailedError, match=f": {name} is not the file that was proven"
        ):
            shelf.repository.verify(bundle)
    shelf.delete(f"net/1/{name}")
    with pytest.raises(ValidationFailedError, match=f": {name} is missing"):
        shelf.repository.verify(bundle)


def test_a_file_that_nobody_has_proven_is_named(shelf: Shelf, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    export(shelf, bundle)
    shelf.put("net/1/model.onnx.data", b"?")
    with pytest.raises(ValidationFailedError, match=r"model.onnx.data is not in the manifest"):
        shelf.repository.verify(bundle)


def test_another_models_manifest_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    export(shelf, make_bundle(tmp_path))
    shelf.put("net/2/manifest.json", shelf.content()["net/1/manifest.json"])
    with pytest.raises(ValidationFailedError, match="not of 'net' 2"):
        shelf.repository.bundle("net", 2)


def test_a_version_is_removed(shelf: Shelf, tmp_path: Path) -> None:
    export(shelf, make_bundle(tmp_path, warmup=b"\1" * 16))
    export(shelf, make_bundle(tmp_path, 2))
    with pytest.raises(ConflictError, match="version 2 of 'net' is served"):
        shelf.repository.remove("net", 2, shelf.work)
    shelf.repository.remove("net", 1, shelf.work)
    assert shelf.repository.versions("net") == (2,)
    assert not [name for name in shelf.content() if "/1/" in name or "01010101" in name]
    assert shelf.repository.served_versions("net") == (2,)


def test_a_version_without_manifest_is_nobodys(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("net/1/model.onnx", b"theirs")
    assert shelf.repository.bundle("net", 1) is None
    assert shelf.repository.versions("net") == ()
    assert shelf.repository.served_versions("net") == ()
    assert not shelf.repository.is_serving(make_bundle(tmp_path))
