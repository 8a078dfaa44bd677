"""Measures what a call costs: triton_client, tritonclient.grpc and the generated stub.

    python -m benchmarks.client [--seconds 10] [--sizes 2KB 256KB 4MB 32MB] [--in-flight 1 32]

All send the same to one real tritonserver on loopback: one float32 tensor there and back, numpy in
and numpy out, through a model that returns its input. They run in one process, over connections of
their own, and take turns of a fifth of a second, so that whatever else the machine does meets all
of them. The figures are medians over these turns, wall time and this process's processor time per
call. Before anything is measured each must return what it was sent.

``grpc`` is the least that anybody could do with the generated classes: a
``ModelInferRequest`` with ``raw_input_contents``, and ``np.frombuffer`` on what comes back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import shared_memory

from benchmarks.guard import guarded
from benchmarks.results import progress, write
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from triton_client import AsyncTritonClient, TritonClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

_SIZES = {"2KB": 2 << 10, "256KB": 256 << 10, "4MB": 4 << 20, "32MB": 32 << 20}
_OURS, _THEIRS, _STUB = "triton_client", "tritonclient", "grpc"
_SHARED, _THEIRS_SHARED = "triton_client, shared memory", "tritonclient, shared memory"
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_TURN_SECONDS = 0.2
"""About how long a turn takes: short beside what else the machine does, and long enough for the
allocator to settle, as it would where one client has the process to itself."""
_LEAST_TURNS = 6
_CONFIG = """
name: "echo" backend: "python" max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [-1] }
output { name: "y" data_type: TYPE_FP32 dims: [-1] }
instance_group { kind: KIND_CPU count: 1 }
version_policy { specific { versions: [1] } }
"""
_MODEL = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [utils.InferenceResponse([utils.Tensor("y", request.inputs()[0].as_numpy())])
                for request in requests]
"""
# mode, size, contestant, base, at most this much of the base's wall time, of its processor time
_AIMS: tuple[tuple[str, str, str, str, float, float | None], ...] = (
    ("sync", "2KB", _OURS, _THEIRS, 1 / 1.0, None),
    ("sync", "256KB", _OURS, _THEIRS, 1 / 1.4, None),
    ("sync", "4MB", _OURS, _THEIRS, 1 / 2, 1 / 3.3),
    ("asyncio, 32 in flight", "2KB", _OURS, _THEIRS, 1 / 1.0, None),
    ("sync", "4MB", _SHARED, _OURS, 1 / 2, None),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call took, in microseconds."""

    wall: float
    cpu: float


Costs = dict[str, dict[str, dict[str, list[Cost]]]]
"""By mode, size and contestant, one for every turn."""


def _sync_contestants(server: TritonServer, size: int, stack: ExitStack) -> dict[str, Any]:
    """Return what sends one array and returns the other, by contestant."""
    url = server.grpc_url
    # Shared memory takes the server's key.
    headers = {f"triton-grpc-protocol-{name}": key for name, key in server.keys.items()}
    model = stack.enter_context(TritonClient(url)).model("echo")
    sharing = stack.enter_context(server.client())
    sharing_model = sharing.model("echo")
    theirs = grpcclient.InferenceServerClient(url)
    stack.callback(theirs.close)
    channel = stack.enter_context(grpc.insecure_channel(url, options=_OPTIONS))
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def ask_theirs(x: np.ndarray) -> np.ndarray:
        return np.asarray(theirs.infer("echo", [_infer_input(x)]).as_numpy("y"))

    def ask_shared(x: np.ndarray) -> np.ndarray:
        np.copyto(sent, x)
        return sharing_model.infer({"x": sent}, outputs={"y": received})["y"]

    def ask_theirs_shared(x: np.ndarray) -> np.ndarray:
        shared_memory.set_shared_memory_region(handles[0], [x])
        answer = theirs.infer("echo", shared_inputs, outputs=shared_outputs)
        return np.asarray(
            shared_memory.get_contents_as_numpy(
                handles[1], np.float32, answer.get_output("y").shape
            )
        )

    memory = stack.enter_context(sharing.shared_memory(2 * size + 4096))
    sent, received = (memory.empty((size // 4,), np.float32) for _ in range(2))
    handles = [
        shared_memory.create_shared_memory_region(name, f"/bench-{size}-{name}", size)
        for name in ("in", "out")
    ]
    for name, handle in zip(("in", "out"), handles, strict=True):
        theirs.register_system_shared_memory(name, f"/bench-{size}-{name}", size, headers=headers)
        stack.callback(shared_memory.destroy_shared_memory_region, handle)
        stack.callback(theirs.unregister_system_shared_memory, name, headers=headers)
    shared_inputs = [grpcclient.InferInput("x", [size // 4], "FP32")]
    shared_inputs[0].set_shared_memory("in", size)
    shared_outputs = [grpcclient.InferRequestedOutput("y")]
    shared_outputs[0].set_shared_memory("out", size)
    return {
        _OURS: lambda x: model.infer({"x": x})["y"],
        _THEIRS: ask_theirs,
        _STUB: lambda x: _from_stub(stub.ModelInfer(_stub_request(x))),
        _SHARED: ask_shared,
        _THEIRS_SHARED: ask_theirs_shared,
    }


def _infer_input(x: np.ndarray) -> Any:
    infer_input = grpcclient.InferInput("x", x.shape, "FP32")
    infer_input.set_data_from_numpy(x)
    return infer_input


def _stub_request(x: np.ndarray) -> Any:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request


def _from_stub(answer: Any) -> np.ndarray:
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)


def _check(name: str, found: np.ndarray, sent: np.ndarray) -> None:
    if not np.array_equal(found, sent):
        raise SystemExit(f"{name} does not return what was sent")


def measure_sync(server: TritonServer, size: str, seconds: float) -> dict[str, list[Cost]]:
    """Return the costs of one call at a time, by contestant."""
    x = np.random.default_rng(1).standard_normal(_SIZES[size] // 4, dtype=np.float32)
    with ExitStack() as stack:
        contestants = _sync_contestants(server, _SIZES[size], stack)
        each = 0.0
        for name, ask in contestants.items():
            _check(name, ask(x), x)
            start = time.perf_counter()
            for _ in range(5):
                ask(x)
            each = max(each, (time.perf_counter() - start) / 5)
        calls = _calls_a_turn(each)
        costs: dict[str, list[Cost]] = {name: [] for name in contestants}
        for names in _turns(list(contestants), seconds):
            for name in names:
                ask = contestants[name]
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(calls):
                    ask(x)
                costs[name].append(_cost(wall, cpu, calls))
    return costs


def _calls_a_turn(each: float) -> int:
    return max(1, round(_TURN_SECONDS / each))


def _turns(names: list[str], seconds: float) -> Iterator[list[str]]:
    """Yield the contestants, another one first each time, for so many seconds of each."""
    end = time.perf_counter() + seconds * len(names)
    turn = 0
    while turn < _LEAST_TURNS or time.perf_counter() < end:
        first = turn % len(names)
        yield names[first:] + names[:first]
        turn += 1


def _cost(wall: float, cpu: float, calls: int) -> Cost:
    passed = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(*(value / calls * 1e6 for value in passed))


async def measure_aio(url: str, size: str, in_flight: int, seconds: float) -> dict[str, list[Cost]]:
    """Return the costs of calls from one event loop, by contestant."""
    x = np.random.default_rng(1).standard_normal(_SIZES[size] // 4, dtype=np.float32)
    async with (
        AsyncTritonClient(url) as ours,
        aioclient.InferenceServerClient(url) as theirs,
        grpc.aio.insecure_channel(url, options=_OPTIONS) as channel,
    ):
        model = await ours.model("echo")
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask_ours(x: np.ndarray) -> np.ndarray:
            return (await model.infer({"x": x}))["y"]

        async def ask_theirs(x: np.ndarray) -> np.ndarray:
            return np.asarray((await theirs.infer("echo", [_infer_input(x)])).as_numpy("y"))

        async def ask_stub(x: np.ndarray) -> np.ndarray:
            return _from_stub(await stub.ModelInfer(_stub_request(x)))

        contestants = {_OURS: ask_ours, _THEIRS: ask_theirs, _STUB: ask_stub}
        each = 0.0
        for name, ask in contestants.items():
            _check(name, await ask(x), x)
            start = time.perf_counter()
            await _ask_all(ask, x, 2 * in_flight, in_flight)
            each = max(each, (time.perf_counter() - start) / 2)
        # So many calls of each that is in flight, lest the first and the last ones tell.
        calls = in_flight * max(2, _calls_a_turn(each))
        costs: dict[str, list[Cost]] = {name: [] for name in contestants}
        for names in _turns(list(contestants), seconds):
            for name in names:
                wall, cpu = time.perf_counter(), time.process_time()
                await _ask_all(contestants[name], x, calls, in_flight)
                costs[name].append(_cost(wall, cpu, calls))
    return costs


async def _ask_all(
    ask: Callable[[np.ndarray], Awaitable[np.ndarray]], x: np.ndarray, calls: int, in_flight: int
) -> None:
    async def work(turns: Iterator[int]) -> None:
        for _ in turns:
            await ask(x)

    turns = iter(range(calls))
    await asyncio.gather(*(work(turns) for _ in range(in_flight)))


def _middle(costs: Sequence[Cost]) -> Cost:
    return Cost(median(cost.wall for cost in costs), median(cost.cpu for cost in costs))


def _show(costs: Costs) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    for mode, by_size in costs.items():
        table = Table(title=f"{mode}: microseconds per call, medians", title_justify="left")
        for heading in ("tensor", "client"):
            table.add_column(heading)
        for heading in ("wall", "processor", "wall, tritonclient = 1", "processor"):
            table.add_column(heading, justify="right")
        for size, by_name in by_size.items():
            base = _middle(by_name[_THEIRS])
            for number, (name, entry) in enumerate(by_name.items()):
                cost = _middle(entry)
                table.add_row(
                    "" if number else size,
                    name,
                    f"{cost.wall:,.0f}",
                    f"{cost.cpu:,.0f}",
                    f"{cost.wall / base.wall:.2f}",
                    f"{cost.cpu / base.cpu:.2f}",
                    end_section=number == len(by_name) - 1,
                )
        console.print(table)
    for mode, size, name, other, wall, cpu in _AIMS:
        entry = costs.get(mode, {}).get(size)
        if entry is None:
            continue
        ours, theirs = _middle(entry[name]), _middle(entry[other])
        console.print(
            f"{mode}, {size}: {theirs.wall / ours.wall:.2f} x as fast as {other} "
            f"{_verdict(ours.wall / theirs.wall, wall, f'aim {1 / wall:.2g} x')}"
            + (
                ""
                if cpu is None
                else f", {ours.cpu / theirs.cpu:.2f} of its processor time "
                f"{_verdict(ours.cpu / theirs.cpu, cpu, f'aim {cpu:g}')}"
            )
            + (f" ({name})" if name != _OURS else "")
        )


def _verdict(ratio: float, most: float, aim: str) -> str:
    return f"({aim}: {'[green]reached[/]' if ratio <= most else '[red]missed[/]'})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a call costs.")
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement (10)")
    parser.add_argument("--sizes", nargs="+", choices=_SIZES, default=list(_SIZES))
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 32])
    return parser.parse_args()


def main() -> None:
    """Run it."""
    options = _options()
    costs: Costs = {"sync": {}}
    with tempfile.TemporaryDirectory(prefix="stlab-bench-") as scratch, guarded():
        folder = Path(scratch) / "echo"
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(_CONFIG)
        (folder / "1" / "model.py").write_text(_MODEL)
        server = TritonServer.start(
            ensure_runtime(release(DEFAULT_RELEASE)), scratch, models=["echo"]
        )
        try:
            server.wait_live()
            with TritonClient(server.grpc_url) as client:
                client.wait_until_ready()
            for size in options.sizes:
                progress.print(f"sync, {size}")
                costs["sync"][size] = measure_sync(server, size, options.seconds)
            for in_flight in options.in_flight:
                mode = f"asyncio, {in_flight} in flight"
                costs[mode] = {}
                for size in options.sizes:
                    # 32 tensors of 32 MB each way do not say more than 4 MB do.
                    if in_flight > 1 and _SIZES[size] * in_flight > 256 << 20:
                        continue
                    progress.print(f"{mode}, {size}")
                    costs[mode][size] = asyncio.run(
                        measure_aio(server.grpc_url, size, in_flight, options.seconds)
                    )
        finally:
            server.stop()
    _show(costs)
    write(
        "client",
        {
            "microseconds": {
                mode: {
                    size: {
                        name: [asdict(cost) for cost in entry] for name, entry in by_name.items()
                    }
                    for size, by_name in by_size.items()
                }
                for mode, by_size in costs.items()
            }
        },
    )


if __name__ == "__main__":
    main()
