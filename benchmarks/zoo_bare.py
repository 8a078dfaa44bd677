"""What everybody's script does with a model of the zoo: convert it, and trust what comes out.

Of a torch module or a model of transformers that is ``torch.onnx.export`` with the example and a
symbolic batch, as `bare_export.py` does; of an estimator ``skl2onnx.to_onnx`` with the example in
float32. That converts no XGBoost and no LightGBM: there it is ``onnxmltools`` where that can be
imported, which stlab does not install, and else nothing is exported. What they write is asked in
ONNX Runtime. An ONNX file is copied, that one file, into the repository of a Triton that completes
configurations, as it does by default, and is asked there.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from functools import singledispatch
from typing import TYPE_CHECKING, Any
from unittest import mock

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import torch

from exporter.triton import server as starting
from exporter.triton.flags import safe_flags
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from tests.zoo.blind_spots_text import TextEstimator
from tests.zoo.blind_spots_torch import BlindModule
from tests.zoo.comparing import Ask
from tests.zoo.modules import Module
from tests.zoo.onnx_files import OnnxFile
from tests.zoo.tabular import Estimator
from tests.zoo.transformer_models import TransformerModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.zoo.comparing import Array
    from triton_client import TritonClient

__all__ = ["Workplace", "bare", "workplace"]


class Workplace:
    """Where the scripts put their files.

    Attributes:
        folder: For whatever they write.
        repository: What a Triton serves that completes configurations.
        client: Asks that.
    """

    def __init__(self, folder: Path, repository: Path, client: TritonClient) -> None:
        self.folder, self.repository, self.client = folder, repository, client


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Workplace]:
    """Start a Triton as it is without stlab's flags, and stop it at the end."""
    repository = folder / "copies"
    repository.mkdir()
    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    flags = [flag for flag in safe_flags(runtime) if "auto-complete" not in flag]
    with (
        mock.patch.object(starting, "safe_flags", return_value=flags),
        starting.TritonServer.start(runtime, str(repository)) as server,
    ):
        server.wait_live()
        with server.client() as client:
            yield Workplace(folder, repository, client)


@singledispatch
def bare(model: Any, place: Workplace) -> Ask:
    """Do what the script does, and return how its result is asked.

    Raises:
        Exception: Whatever the converter raises.
    """
    raise NotImplementedError(type(model))


@bare.register
def _(model: Module, place: Workplace) -> Ask:
    path = place.folder / f"{model.name}.onnx"
    tensors = {name: torch.from_numpy(array.copy()) for name, array in model.example.items()}
    batch = torch.export.Dim("batch")
    shapes: list[dict[int, Any]] = [{0: batch} for _ in tensors]
    if isinstance(model, BlindModule):
        # Their example hides a length, and not that lengths vary.
        for name, shape in zip(tensors, shapes, strict=True):
            shape.update(dict.fromkeys((model.free or {}).get(name, ()), torch.export.Dim.DYNAMIC))
    torch.onnx.export(
        model.module(),
        tuple(tensors.values()),
        path,
        dynamo=True,
        input_names=list(tensors),
        dynamic_shapes=tuple(shapes),
        verbose=False,
    )
    return _asking(path)


@bare.register
def _(model: TransformerModel, place: Workplace) -> Ask:
    path = place.folder / f"{model.name}.onnx"
    tensors = {name: torch.from_numpy(array) for name, array in model.rows(2).items()}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    torch.onnx.export(
        model.network,
        (),
        path,
        kwargs=tensors,
        dynamo=True,
        input_names=list(tensors),
        dynamic_shapes={name: {0: batch, 1: length} for name in tensors},
        verbose=False,
    )
    return _asking(path)


@bare.register
def _(model: Estimator, place: Workplace) -> Ask:
    path = place.folder / f"{model.name}.onnx"
    proto = _boosted(model) if model.flavor is not mlflow.sklearn else _converted(model)
    path.write_bytes(proto.SerializeToString())
    ask = _asking(path)
    # A label may come with scores, of which its estimator's own answer has none.
    answers = 2 if hasattr(model.fitted, "predict_proba") else 1
    return lambda given: ask(given)[:answers]


@bare.register
def _(model: TextEstimator, place: Workplace) -> Ask:
    import skl2onnx

    path = place.folder / f"{model.name}.onnx"
    kind = skl2onnx.common.data_types.StringTensorType([None, 1])
    # Without it the file needs a locale that few containers have.
    locale = {id(model.fitted[0]): {"locale": "C.UTF-8"}}
    proto = skl2onnx.to_onnx(model.fitted, initial_types=[("text", kind)], options=locale)
    path.write_bytes(proto.SerializeToString())
    return _asking(path)


@bare.register
def _(model: OnnxFile, place: Workplace) -> Ask:
    folder = place.repository / model.name / "1"
    folder.mkdir(parents=True)
    shutil.copy(model.logged(place.folder / f"{model.name}-logged"), folder / "model.onnx")
    place.client.repository.load(model.name)
    served = place.client.model(model.name)

    def ask(given: Mapping[str, Array]) -> list[Any]:
        named = dict(zip(model.example, given.values(), strict=True))
        return list(served.infer(named).values())

    return ask


def _converted(model: Estimator) -> Any:
    import skl2onnx

    return skl2onnx.to_onnx(model.fitted, _single(model.example))


def _boosted(model: Estimator) -> Any:
    # Nothing requires it: it is there if somebody installed it.
    tools = importlib.import_module("onnxmltools")
    kinds = importlib.import_module("onnxmltools.convert.common.data_types")
    convert = tools.convert_xgboost if model.flavor is mlflow.xgboost else tools.convert_lightgbm
    kind = kinds.FloatTensorType([None, model.example.shape[1]])
    return convert(model.fitted, initial_types=[("input", kind)])


def _single(table: Any) -> Any:
    """Return a table with its numbers in float32; whole ones of a data frame stay."""
    if isinstance(table, pd.DataFrame):
        wide = table.select_dtypes("float64").columns
        return table.astype(dict.fromkeys(wide, np.float32))
    return table.astype(np.float32)


def _asking(path: Path) -> Ask:
    """Return how a session is asked: by place, in its own types."""
    session = onnxruntime.InferenceSession(path)
    inputs = session.get_inputs()

    def ask(given: Mapping[str, Array]) -> list[Any]:
        feed = {
            node.name: array.astype(np.float32)
            if node.type == "tensor(float)" and array.dtype == np.float64
            else array
            for node, array in zip(inputs, given.values(), strict=True)
        }
        return [_by_class(answer) for answer in session.run(None, feed)]

    return ask


def _by_class(answer: Any) -> Any:
    """Return the values of a dictionary for each row side by side, in the order of its keys."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return np.array([[row[key] for key in sorted(row)] for row in answer])
    return answer
