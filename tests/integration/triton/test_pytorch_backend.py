"""An unmodified ``backend: "pytorch"`` repository, served as NVIDIA's backend would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from exporter.triton.server import TritonServer
from triton_client import TritonClient
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from exporter.triton.runtime import Runtime

pytestmark = [
    pytest.mark.triton,
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]


class Lookup(nn.Module):
    """Values times those that a table has at an index per row, and the next index."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(5.0), requires_grad=True)

    def forward(
        self, index: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x.mul_(self.table[index].unsqueeze(1))
        return x, index + 1, x.sum()


class Moody(nn.Module):
    """Answers by what it is given: itself, whole numbers, a scalar, or not at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mood = int(x[0])
        if mood == 1:
            return x.long()
        if mood == 2:
            return x.sum()
        if mood == 3:
            return x[:, 1]
        return x


class Named(nn.Module):
    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return tensors["left"] - tensors["right"]


def entry(name: str, dims: str, kind: str = "FP32", more: str = "") -> str:
    return f'{{ name: "{name}" data_type: TYPE_{kind} dims: {dims} {more} }}'


def parameters(**values: str) -> str:
    entry = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}'
    return "\n".join(entry.format(*pair) for pair in values.items())


ROW, PAIR, SCALAR = "[ 3 ]", "[ 2 ]", "[ 1 ]"
RESHAPED = "reshape { shape: [ ] }"
LOOKUP = f"""
max_batch_size: 8
input {entry("INPUT__1", ROW)}
input {entry("INPUT__0", SCALAR, "INT64", RESHAPED)}
output {entry("OUTPUT__1", SCALAR, "INT64", RESHAPED)}
output {entry("OUTPUT__0", ROW)}
dynamic_batching {{ max_queue_delay_microseconds: 20000 }}
default_model_filename: "my weights.pt"
"""
SINGLE = f"input {entry('INPUT__0', '[ -1 ]')} output {entry('OUTPUT__0', '[ -1 ]')}"
MODELS: Mapping[str, tuple[nn.Module | None, str]] = {
    "lookup": (
        Lookup(),
        LOOKUP
        + parameters(
            DISABLE_OPTIMIZED_EXECUTION="true",
            INFERENCE_MODE="true",
            INTRA_OP_THREAD_COUNT="1",
            INTER_OP_THREAD_COUNT="1",
            ENABLE_JIT_PROFILING="false",
        ),
    ),
    "moody": (Moody(), SINGLE + parameters(INFERENCE_MODE="false")),
    "named": (
        Named(),
        f"input {entry('right', PAIR)} input {entry('left', PAIR)} output {entry('by', PAIR)}",
    ),
}
REFUSED: Mapping[str, tuple[nn.Module | None, str, str]] = {
    "too-many-inputs": (
        Moody(),
        f"{SINGLE} input {entry('INPUT__1', '[ 1 ]')}",
        "'too-many-inputs', configuration expects 2 inputs, model provides 1",
    ),
    "no-script": (nn.Linear(1, 1), SINGLE, "Internal: failed to load model 'no-script'"),
    "no-file": (None, SINGLE, "model.pt' for model instance 'no-file'"),
    "no-sense": (
        Moody(),
        SINGLE + parameters(INTRA_OP_THREAD_COUNT="many"),
        "Invalid argument: failed to convert 'many' to integral number",
    ),
}


def write(repository: Path, name: str, module: nn.Module | None, config: str) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    more = "instance_group { kind: KIND_AUTO count: 1 }"
    (folder.parent / "config.pbtxt").write_text(f'backend: "pytorch"\n{config}\n{more}')
    path = folder / ("my weights.pt" if "my weights" in config else "model.pt")
    if isinstance(module, nn.Linear):
        torch.save(module.state_dict(), path)
    elif module is not None:
        torch.jit.save(torch.jit.script(module), path)


@pytest.fixture(scope="module")
def client(
    runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TritonClient, Mapping[str, str]]]:
    """A client of a server that was told to load every model, and what it said of each."""
    repository = tmp_path_factory.mktemp("repository")
    for name, (module, config, *_) in {**MODELS, **REFUSED}.items():
        write(repository, name, module, config)
    with TritonServer.start(runtime, str(repository)) as server:
        server.wait_live()
        with server.client() as client, ThreadPoolExecutor(4) as threads:

            def load(name: str) -> str:
                try:
                    client.repository.load(name, deadline=200)
                except TritonClientError as error:
                    return error.message
                return ""

            names = [*MODELS, *REFUSED]
            yield client, dict(zip(names, threads.map(load, names), strict=True))


Served = tuple[TritonClient, "Mapping[str, str]"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_production_refuses_is_refused(client: Served, name: str) -> None:
    verdict = client[1][name]
    assert "load failed for model" in verdict
    assert REFUSED[name][2] in verdict


def lookup(client: TritonClient, index: list[int]) -> Mapping[str, np.ndarray]:
    x = np.arange(3 * len(index), dtype=np.float32).reshape(-1, 3)
    return client.model("lookup").infer(
        {"INPUT__0": np.array(index)[:, None], "INPUT__1": x}, deadline=60
    )


def test_numbers_in_names_tell_tensors_apart_and_scalars_are_reshaped(client: Served) -> None:
    assert client[1]["lookup"] == ""
    answer = lookup(client[0], [2, 0, 4])
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    np.testing.assert_array_equal(answer["OUTPUT__0"], x * [[2], [0], [4]])
    np.testing.assert_array_equal(answer["OUTPUT__1"], [[3], [1], [5]])
    assert answer["OUTPUT__1"].dtype == np.int64


def test_one_bad_request_of_a_batch_spoils_no_other(client: Served) -> None:
    asked = [[1], [2, 3], [99], [4], [0, 1, 2]]

    def ask(index: list[int]) -> np.ndarray | str:
        try:
            return lookup(client[0], index)["OUTPUT__1"]
        except TritonClientError as error:
            return error.message

    with ThreadPoolExecutor(len(asked)) as threads:
        answers = list(threads.map(ask, asked))
    for index, answer in zip(asked, answers, strict=True):
        if index == [99]:
            assert "PyTorch execute failure" in str(answer)
        else:
            np.testing.assert_array_equal(answer, np.array(index)[:, None] + 1)


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        (1, "expects datatype TYPE_FP32 for output 'OUTPUT__0', model provides TYPE_INT64"),
        (2, "output 'OUTPUT__0' is a scalar which is not supported."),
        (3, "PyTorch execute failure"),
    ],
)
def test_answers_that_do_not_fit_are_errors(client: Served, mood: int, words: str) -> None:
    assert client[1]["moody"] == ""
    model = client[0].model("moody")
    with pytest.raises(TritonClientError) as error:
        model.infer({"INPUT__0": np.array([mood, 5], np.float32)}, deadline=60)
    assert words in error.value.message
    good = np.array([0, 7, 8], np.float32)
    np.testing.assert_array_equal(model.infer({"INPUT__0": good})["OUTPUT__0"], good)


def test_one_dict_takes_any_names(client: Served) -> None:
    assert client[1]["named"] == ""
    answer = (
        client[0]
        .model("named")
        .infer(
            {"left": np.array([5, 6], np.float32), "right": np.array([1, 9], np.float32)},
            deadline=60,
        )
    )
    np.testing.assert_array_equal(answer["by"], [4, -3])
