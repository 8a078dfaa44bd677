"""How torch modules become TorchScript: in which way, with which sizes, in which bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from exporter.build.configure import build_config
from exporter.errors import ValidationFailedError
from exporter.formats.base import Conversion, Target
from exporter.formats.torchscript import convert
from exporter.formats.torchscript.archive import write_archive
from exporter.formats.torchscript.fx_to_script import NotWritableError, script_of_graph
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Evidence
from exporter.parity.reference_checks import check_reference
from exporter.sources.base import Source
from exporter.sources.pytorch.module_source import ModuleSource
from exporter.triton.releases import DEFAULT_RELEASE, release
from tests.zoo import layers

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
TARGET = Target(release(DEFAULT_RELEASE))
AUTO = torch.export.Dim.AUTO
X = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)


def made(
    folder: Path,
    module: nn.Module,
    example: Mapping[str, np.ndarray[Any, Any]],
    free: tuple[int, ...] = (),
) -> tuple[Conversion, Any]:
    """Convert a module, and load what was written."""
    varying = dict.fromkeys(example, (0, *free))
    source = ModuleSource(module.eval(), example, varying)
    references = check_reference(source, Evidence(), max_batch_size=4, batching="auto")
    folder.mkdir()
    conversion = convert(source, folder, TARGET, references)
    return conversion, torch.jit.load(folder / "model.pt")


@pytest.mark.parametrize(
    ("make", "example", "free", "way"),
    [
        (layers.Mlp, X, (), "torch.jit.trace"),
        # A trace keeps the number of turns, and which way it went.
        (layers.ScriptedLoop, np.stack([X, X], -1), (1,), "torch.jit.script"),
        (layers.RareBranch, X, (), "torch.jit.script"),
        # Neither a trace nor a script sees what NumPy does.
        (layers.NumpyInside, X, (), "torch.export strict graph"),
        (lambda: torch.jit.script(layers.RareBranch()), X, (), "as logged"),
    ],
)
def test_the_way_that_answers_right(
    tmp_path: Path,
    make: Callable[[], nn.Module],
    example: np.ndarray[Any, Any],
    free: tuple[int, ...],
    way: str,
) -> None:
    module = make()
    conversion, script = made(tmp_path / "made", module, {"x": example}, free)
    assert conversion.converter == way
    assert conversion.names == {"x": "INPUT__0", "output": "OUTPUT__0"}
    for given in (example[:1], 2000 * example[:3], example[:, : 2 if free else 6]):
        with torch.no_grad():
            expected = module(torch.tensor(given))
            torch.testing.assert_close(script(torch.tensor(given)), expected)


def test_what_no_way_keeps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailedError, match="branches on values") as refusal:
        made(tmp_path / "made", layers.UnscriptableBranch(), {"x": X})
    assert refusal.value.kind == "convert"
    assert "--format onnx" in refusal.value.hint


class Places(nn.Module):
    """Makes tensors of its own, in itself and in a part of it."""

    class Numbered(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(x.shape[1], device=x.device)[None, :, None]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.numbered = Places.Numbered()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        begin = torch.zeros(x.shape[0], 1, 4, device=x.device)
        states = torch.cat([begin, self.layer(self.numbered(x))], 1)
        return {"last": states[:, -1], "mean": states.mean(1)}


SERIES = np.random.default_rng(4).normal(size=(3, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("traced", [True, False])
def test_tensors_are_made_where_the_inputs_lie(tmp_path: Path, traced: bool) -> None:
    if traced:
        _, script = made(tmp_path / "made", Places(), {"x": SERIES})
    else:
        script = of_graph(Places(), torch.tensor(SERIES), outputs=2)
    code = "".join(module.code for module in script.modules())
    assert "prim.device" in code
    assert "torch.device(" not in code


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    written = []
    for name in "ab":
        made(tmp_path / name, Places(), {"x": SERIES})
        written.append((tmp_path / name / "model.pt").read_bytes())
    assert written[0] == written[1]
    made(tmp_path / "other", Places(1), {"x": SERIES})
    assert (tmp_path / "other" / "model.pt").read_bytes() != written[0]
    with zipfile.ZipFile(tmp_path / "a" / "model.pt") as archive:
        names = archive.namelist()
        content = b"".join(archive.read(name) for name in names)
    assert {name.partition("/")[0] for name in names} == {"model"}
    assert not any("debug" in name or "traced_inputs" in name for name in names)
    for place in (tmp_path, Path(__file__).parent, Path(torch.__file__).parent):
        assert str(place).encode() not in content


def test_scripts_with_functions_and_classes_of_one_name_survive(tmp_path: Path) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6, bias=False)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = nn.functional.pad(layer(x), [1, 0])[:, :6]
            return nn.functional.layer_norm(x, [6])

    script = torch.jit.script(Padded())
    write_archive(script, tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    torch.testing.assert_close(loaded(torch.tensor(X)), script(torch.tensor(X)))
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt"]


def of_graph(
    module: nn.Module, *example: torch.Tensor, outputs: int = 1, scalar: bool = False
) -> torch.jit.ScriptModule:
    """Export a module with rows that vary, and write its graph."""
    sizes = tuple({0: AUTO} if tensor.dim() else None for tensor in example)
    program = torch.export.export(module.eval(), example, dynamic_shapes=sizes)
    interface = Interface(
        tuple(Tensor(f"x{i}", "FP32", tuple(t.shape)) for i, t in enumerate(example)),
        tuple(Tensor(f"y{i}", "FP32", () if scalar else ("n",)) for i in range(outputs)),
    )
    return script_of_graph(program.module(), interface)


def test_sizes_of_a_graph_stay_sizes() -> None:
    class Sizes(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rows = x.shape[0]
            with torch.no_grad():
                padded = x.new_zeros(2 * rows + 1, 6).view(-1, 3)
            weights = torch.tensor([float("inf"), 1.0])[:, None]
            return x.reshape(rows // 1, 2, 3), padded, torch.cat([x, x])[[0, 1]] * weights

    module, script = Sizes(), of_graph(Sizes(), torch.tensor(X), outputs=3)
    for rows in (1, 3):
        given = torch.tensor(X[:rows])
        for found, right in zip(script(given), module(given), strict=True):
            torch.testing.assert_close(found, right)


def test_graphs_of_equal_shape_are_different_scripts() -> None:
    """torch shares what it compiles between modules with the same tensors."""
    scripts = []
    for activation in (nn.ReLU(), nn.Tanh()):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 2), activation)
        scripts.append(of_graph(module, torch.tensor(X)))
    relu, tanh = (script(torch.tensor(X)) for script in scripts)
    assert relu.min() == 0
    assert tanh.min() < 0


def test_one_tensor_under_two_names_is_kept_once() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    module[1].weight = module[0].weight
    script = of_graph(module, torch.tensor(X))
    assert len(dict(script.named_buffers())) == 3


def test_a_condition_in_a_graph() -> None:
    class Either(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))

    script = of_graph(Either(), torch.tensor(X))
    up, down = torch.ones(2, 6), -torch.ones(2, 6)
    torch.testing.assert_close(script(up), up * 2)
    torch.testing.assert_close(script(down), down - 1)


def test_what_has_no_axes_has_one_of_one_element() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return (x * by).sum()

    script = of_graph(Scaled(), torch.tensor(X), torch.tensor(2.0), scalar=True)
    assert script(torch.ones(3, 6), torch.tensor([2.0])).tolist() == [36.0]


def test_loops_of_a_graph_are_not_traced() -> None:
    class HalfModel(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.while_loop(lambda x: x.sum() > 1, lambda x: (x / 2,), (x,))[0]

    with pytest.raises(NotWritableError, match="while_loop"):
        of_graph(HalfModel(), torch.tensor(X))


def source(interface: Interface, **more: Any) -> Source:
    return cast(
        "Source", SimpleNamespace(flavor="onnx", interface=interface, batching_blocker="", **more)
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "torches", "kind", "words"),
    [
        ("a:FP32", "b:FP32", False, "format", "has no TorchScript form"),
        ("a:UINT32", "b:FP32", True, "interface", "the input 'a' is UINT32"),
        ("a:FP32", "b:BYTES", True, "interface", "the output 'b' is BYTES"),
        ("a:FP32", "a:FP32", True, "interface", "both called 'a'"),
    ],
)
def test_what_cannot_be_served(
    tmp_path: Path, inputs: str, outputs: str, torches: bool, kind: str, words: str
) -> None:
    def tensors(text: str) -> tuple[Tensor, ...]:
        return tuple(Tensor(*entry.split(":"), ("n",)) for entry in text.split())

    given = source(
        Interface(tensors(inputs), tensors(outputs)),
        **({"torchscript_module": lambda: None} if torches else {}),
    )
    with pytest.raises(ValidationFailedError, match=words) as refusal:
        convert(given, tmp_path, TARGET, cast("Any", None))
    assert refusal.value.kind == kind
    assert refusal.value.hint


@pytest.mark.parametrize(("size", "set_to"), [(1 << 20, "1"), (1 << 30, "")])
def test_small_models_run_in_one_thread(size: int, set_to: str) -> None:
    tensor = Tensor("INPUT__0", "FP32", ("n", 6))
    interface = Interface((tensor,), (Tensor("OUTPUT__0", "FP32", ("n",)),))
    conversion = Conversion("torchscript", "pytorch", "model.pt", interface, "", {}, size)
    config = build_config("m", 1, conversion, max_batch_size=4, warmup=())
    assert config.parameters["INTRA_OP_THREAD_COUNT"].string_value == set_to
