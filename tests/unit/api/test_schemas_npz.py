"""Arrays as npz, in and out."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stlab_api.npz import to_npz
from stlab_api.problems import Problem
from stlab_api.schemas import RequestSchema
from tests.unit.api.fakes import FakeBackend, FakePredictor, finished, model_spec, running
from triton_client.types import TensorSpec

NPZ = "application/x-npz"
SECRET = "hunter2"
X = TensorSpec("x", "FP32", (-1, 2))


def packed(compress: bool = False, **arrays: Any) -> bytes:
    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **arrays)
    return content.getvalue()


def zipped(entries: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return content.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    raw = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data


def codec(*inputs: TensorSpec, max_bytes: int = 10**6, max_rows: int = 16) -> RequestSchema:
    return RequestSchema(model_spec(inputs=inputs or (X,)), max_rows=max_rows, max_bytes=max_bytes)


def refused(reader: RequestSchema, body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        reader.from_npz(body)
    return caught.value


def test_arrays_are_taken_as_they_are() -> None:
    kinds = {
        "BOOL": [True, False],
        "INT8": [-128, 127],
        "UINT64": [0, 2**64 - 1],
        "FP16": [0.5, np.inf],
        "FP32": [np.nan, 1e-40],
        "FP64": [1e300, -0.0],
    }
    given = {f"{k}/out:0": np.array(v, TensorSpec("", k, ()).dtype) for k, v in kinds.items()}
    reader = codec(*(TensorSpec(f"{k}/out:0", k, (-1,)) for k in kinds))
    for compress in (False, True):
        found = reader.from_npz(packed(compress, **given))
        assert found.keys() == given.keys()
        for name, array in given.items():
            assert found[name].dtype == array.dtype
            assert found[name].tobytes() == array.tobytes()


def test_the_layout_in_memory_does_not_matter() -> None:
    given = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert np.array_equal(codec().from_npz(packed(x=given))["x"], given)


def test_strings_of_either_kind_are_bytes() -> None:
    for words in (["a", "日本", ""], [b"a", "日本".encode(), b""]):
        found = codec(TensorSpec("x", "BYTES", (-1,))).from_npz(packed(x=np.array(words)))["x"]
        assert found.dtype == object
        assert found.tolist() == [b"a", "日本".encode(), b""]


def test_another_dtype_is_refused() -> None:
    for dtype in ("float64", "float16", ">f4", "int32", "bool", "complex64", "S3", "U3", "M8[s]"):
        problem = refused(codec(), packed(x=np.zeros((1, 2), dtype)))
        assert (problem.status, problem.kind) == (422, "invalid-input")
        assert problem.errors[0]["pointer"] == "/inputs/x"
        assert "float32" in problem.detail


def test_numbers_are_no_strings() -> None:
    reader = codec(TensorSpec("x", "BYTES", (-1,)))
    assert refused(reader, packed(x=np.zeros(2, np.float32))).status == 422


def test_another_shape_is_refused() -> None:
    for shape in ((2,), (1, 3), (1, 2, 1), (), (2, 0)):
        problem = refused(codec(), packed(x=np.zeros(shape, np.float32)))
        assert (problem.status, problem.errors[0]["pointer"]) == (422, "/inputs/x")
        assert str(list(shape)) in problem.detail
        assert "[-1, 2]" in problem.detail


def test_unknown_and_missing_names_are_refused() -> None:
    row = np.zeros((1, 2), np.float32)
    unknown = refused(codec(), packed(x=row, z=row))
    assert (unknown.status, unknown.errors[0]["pointer"]) == (422, "/inputs/z")
    missing = refused(codec(), packed())
    assert (missing.status, missing.errors[0]["pointer"]) == (422, "/inputs/x")


def test_an_optional_array_may_be_left_out() -> None:
    reader = codec(X, TensorSpec("m", "BOOL", (-1,), optional=True))
    row = np.zeros((1, 2), np.float32)
    assert set(reader.from_npz(packed(x=row))) == {"x"}
    assert set(reader.from_npz(packed(x=row, m=np.ones(1, bool)))) == {"x", "m"}


def test_rows_are_limited() -> None:
    for rows in (0, 4):
        reader = codec(max_rows=3)
        assert len(reader.from_npz(packed(x=np.zeros((3, 2), np.float32)))["x"]) == 3
        problem = refused(reader, packed(x=np.zeros((rows, 2), np.float32)))
        assert (problem.status, problem.kind) == (422, "too-many-rows")
        assert "3" in problem.detail


def test_inputs_differ_in_rows() -> None:
    reader = codec(X, TensorSpec("z", "FP32", (-1,)))
    body = packed(x=np.zeros((2, 2), np.float32), z=np.zeros(3, np.float32))
    assert refused(reader, body).status == 422


def test_what_is_no_npz_is_malformed() -> None:
    for body in (
        b"",
        b"PK",
        b"{}",
        packed(x=np.zeros((1, 2), np.float32))[:-30],
        packed(x=np.zeros((1, 2), np.float32)).replace(b"NUMPY", b"NUMBY"),
        zipped({"x": b"1,2"}),
        zipped({"x.npy": b""}),
        zipped(
            {"x.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }", b"\0")}
        ),
        zipped({"x.npy": npy("__import__('os').abort()")}),
    ):
        problem = refused(codec(), body)
        assert (problem.status, problem.kind) == (400, "malformed")


def test_nothing_of_a_malformed_npz_is_in_the_error() -> None:
    for header in (
        f"{{'descr': '{SECRET}', 'fortran_order': False, 'shape': (1, 2), }}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': '{SECRET}', }}",
        f"{SECRET} is no header (",
    ):
        problem = refused(codec(), zipped({"x.npy": npy(header)}))
        assert problem.status == 400
        assert SECRET not in problem.response().body.decode()


def test_an_npz_that_grows_beyond_the_limit_is_not_unpacked() -> None:
    bomb = packed(compress=True, x=np.zeros((8_000_000, 2), np.float32))
    assert len(bomb) < 100_000
    reader = codec(max_bytes=100_000)
    tracemalloc.start()
    try:
        problem = refused(reader, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (problem.status, problem.kind) == (413, "too-large")
    assert peak < 5_000_000


def test_many_small_arrays_are_counted_together() -> None:
    one = np.zeros((1, 20_000), np.uint8)
    bomb = packed(compress=True, **{f"a{i}": one for i in range(10)})
    assert refused(codec(max_bytes=100_000), bomb).status == 413


def test_an_npz_that_lies_about_its_size_is_refused() -> None:
    true = 32_000_128  # with the header
    bomb = bytearray(packed(compress=True, x=np.zeros((4_000_000, 2), np.float32)))
    entry = bomb.index(b"PK\x01\x02")
    assert struct.unpack_from("<I", bomb, entry + 24) == (true,)
    struct.pack_into("<I", bomb, entry + 24, 1000)
    assert refused(codec(max_bytes=100_000), bytes(bomb)).status == 400


def test_an_npz_that_lies_about_its_shape_is_refused() -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5000000000000, 2), }"
    assert refused(codec(), zipped({"x.npy": npy(header, bytes(64))})).status in {400, 413, 422}


def test_strings_of_no_input_are_not_unpacked() -> None:
    words = np.full((1, 200_000), b"ab")
    body = packed(compress=True, other=words)
    assert len(body) < 2_000
    reader = codec(TensorSpec("x", "BYTES", (-1, 1)))
    tracemalloc.start()
    try:
        problem = refused(reader, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert problem.status == 422
    assert peak < 5 * words.nbytes


class _Pickled:
    """Leaves a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    body = packed(x=np.array([_Pickled(marker)], object))
    np.load(io.BytesIO(body), allow_pickle=True)["x"]
    assert marker.exists()  # it does what it is meant to
    marker.unlink()
    for reader in (codec(), codec(TensorSpec("x", "BYTES", (-1,)))):
        assert refused(reader, body).status == 400
    assert not marker.exists()


def unpacked(body: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_outputs_are_packed_under_any_name() -> None:
    for name in ("y", "dense/out:0", "class", "日本", "file", "allow_pickle"):
        array = np.array([[1.5, np.nan]], np.float16)
        found = unpacked(to_npz({name: array}))
        assert list(found) == [name]
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array, equal_nan=True)


def test_strings_are_packed_without_pickle() -> None:
    words = np.array([[b"a", "日本".encode()], [b"", b"\xff"]], object)
    found = unpacked(to_npz({"y": words}))["y"]
    assert found.dtype.kind == "S"
    assert found.tolist() == words.tolist()


def test_strings_that_a_npz_would_cut_are_refused() -> None:
    with pytest.raises(Problem, match="end with a zero byte") as caught:
        to_npz({"y": np.array([b"a", b"b\0"], object)})
    assert caught.value.status == 406


def ask(body: bytes, headers: dict[str, str], **changed: Any) -> Any:
    async def asked() -> Any:
        async with running(**changed) as toy:
            return await toy.client.post("/v1/models/toy/predict", content=body, headers=headers)

    return finished(asked())


def test_a_prediction_by_npz() -> None:
    for kind in ("application/octet-stream", NPZ, "Application/X-NPZ; a=b"):
        x = np.array([[1, 2], [3, 4]], np.float32)
        answer = ask(packed(x=x), {"content-type": kind})
        assert answer.status_code == 200
        assert answer.headers["x-model-version"] == "1"
        assert answer.headers["content-type"] == kind.partition(";")[0].lower()
        assert np.array_equal(unpacked(answer.content)["y"], x * 2)


def test_the_answer_may_be_of_another_kind() -> None:
    x = np.array([[1, 2]], np.float32)
    json = ask(packed(x=x), {"content-type": NPZ, "accept": "application/json"})
    assert json.json()["outputs"] == {"y": [[2.0, 4.0]]}
    body = b'{"inputs":{"x":[[1,2]]}}'
    npz = ask(body, {"content-type": "application/json", "accept": NPZ})
    assert np.array_equal(unpacked(npz.content)["y"], x * 2)


def test_another_type_of_body_is_refused() -> None:
    answer = ask(b"x=1", {"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_bomb_sent_to_the_service_is_too_large() -> None:
    bomb = packed(compress=True, x=np.zeros((100_000, 2), np.float32))
    answer = ask(bomb, {"content-type": NPZ}, max_body_bytes=50_000)
    assert answer.status_code == 413


def test_strings_go_through_the_service() -> None:
    def upper(predictor: FakePredictor) -> None:
        predictor.answer = lambda given: {
            "y": np.array([bytes(word).upper() for word in given["x"]], object)
        }

    spec = model_spec(
        inputs=(TensorSpec("x", "BYTES", (-1,)),), outputs=(TensorSpec("y", "BYTES", (-1,)),)
    )
    backend = FakeBackend(specs={"toy": spec}, make=upper)
    answer = ask(packed(x=np.array(["ab", "é"])), {"content-type": NPZ}, backend=backend)
    assert unpacked(answer.content)["y"].tolist() == [b"AB", "é".encode()]
