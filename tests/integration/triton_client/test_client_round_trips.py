"""Whatever is sent through a real tritonserver comes back as it was."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton_client.real_models import ECHOED, place_echo
from triton_client import AsyncTritonClient, TritonClient
from triton_client.types import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.triton

Array = np.ndarray[Any, Any]

# The same values, lying in memory in another way.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda x: x,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "column-major": lambda x: x.copy(order="F"),
    "backwards": lambda x: x[::-1].copy()[::-1],
    "every other": lambda x: x.repeat(2, axis=-1)[..., ::2],
    "of big-endian columns": lambda x: x.astype(x.dtype.newbyteorder(">"), order="F"),
}
WORDS = st.one_of(
    st.binary(max_size=6),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.sampled_from([b"\x00", b"a\x00\x00", "Zürich 漢\x00", b"\xff\xfe"]),
)

examples = settings(max_examples=100, derandomize=True, deadline=None, database=None)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> Array:
    datatype, rank = ECHOED[name]
    shape = tuple(draw(st.lists(st.integers(0, 3), min_size=rank, max_size=rank)))
    count = math.prod(shape)
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = draw(st.lists(WORDS, min_size=count, max_size=count)) if count < 30 else b"\0"
    else:
        dtype = numpy_dtype(datatype)
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        bits = random.bytes(count * dtype.itemsize)  # also infinities and every NaN
        array = np.frombuffer(bits, dtype) if datatype != "BOOL" else random.random(count) < 0.5
    return LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](array.reshape(shape))


@st.composite
def several(draw: st.DrawFn) -> dict[str, Array]:
    names = draw(st.lists(st.sampled_from(list(ECHOED)), min_size=1, max_size=4, unique=True))
    return {name: draw(tensors(name)) for name in names}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    root = tmp_path_factory.mktemp("repository")
    place_echo(root)
    with TritonServer.start(
        ensure_runtime(release("24.10")), str(root), models=["echo"]
    ) as started:
        started.wait_live()
        yield started


@pytest.fixture(scope="module", params=["sync", "asyncio"])
def infer(
    request: pytest.FixtureRequest, server: TritonServer
) -> Iterator[Callable[..., dict[str, Array]]]:
    if request.param == "sync":
        with TritonClient(server.grpc_url) as client:
            yield client.model("echo").infer
        return
    with asyncio.Runner() as runner:
        asking = AsyncTritonClient(server.grpc_url)
        model = runner.run(asking.model("echo"))
        yield lambda *args, **options: runner.run(model.infer(*args, **options))
        runner.run(asking.close())


def assert_came_back(answer: Array, sent: Array) -> None:
    assert answer.shape == sent.shape
    if sent.dtype == object:
        assert answer.dtype == object
        words = [item.encode() if isinstance(item, str) else item for item in sent.ravel().tolist()]
        assert answer.ravel().tolist() == words
    else:
        assert answer.dtype == sent.dtype.newbyteorder("=")
        assert answer.tobytes() == sent.astype(answer.dtype).tobytes()
        assert not answer.size or not answer.flags.writeable


@pytest.mark.parametrize("datatype", list(dict.fromkeys(kind for kind, _ in ECHOED.values())))
def test_every_tensor_of_a_data_type_comes_back(
    infer: Callable[..., dict[str, Array]], datatype: str
) -> None:
    names = [name for name, (kind, _) in ECHOED.items() if kind == datatype]

    @settings(examples, max_examples=30)
    @given(st.data())
    def comes_back(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(names))
        sent = data.draw(tensors(name))
        (answer,) = infer({name: sent}).items()
        assert answer[0] == name
        assert_came_back(answer[1], sent)

    comes_back()


@examples
@given(sent=several(), data=st.data())
def test_several_tensors_come_back_in_any_order(
    infer: Callable[..., dict[str, Array]], sent: dict[str, Array], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.sampled_from(list(sent)), min_size=1, unique=True))
    answer = infer(sent, outputs=wanted)
    assert list(answer) == wanted
    for name in wanted:
        assert_came_back(answer[name], sent[name])
    shuffled = dict(data.draw(st.permutations(list(sent.items()))))
    answer = infer(shuffled)
    assert set(answer) == set(sent)
    for name, array in sent.items():
        assert_came_back(answer[name], array)


@settings(examples, max_examples=60)
@given(power=st.integers(13, 22), more=st.integers(-100, 100), seed=st.integers(0, 2**32))
def test_tensors_of_every_size_come_back(
    infer: Callable[..., dict[str, Array]], power: int, more: int, seed: int
) -> None:
    sent = np.frombuffer(np.random.default_rng(seed).bytes(2**power + more), np.uint8)
    assert_came_back(infer({"UINT8-1": sent})["UINT8-1"], sent)
