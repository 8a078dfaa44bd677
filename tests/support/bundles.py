"""Small bundles that need no model: sealed folders with a config that parses."""

from __future__ import annotations

from pathlib import Path

from exporter.build.configure import WarmupInput, build_config
from exporter.bundle import CONFIG, REPORT, Bundle
from exporter.formats.base import Conversion
from exporter.interface import Interface, Tensor
from exporter.triton.model_config import render

INTERFACE = Interface((Tensor("x", "FP32", ("n", 4)),), (Tensor("y", "FP32", ("n", 2)),))


def conversion(interface: Interface = INTERFACE) -> Conversion:
    return Conversion("onnx", "onnxruntime", "model.onnx", interface, "test", {}, 7)


def make_bundle(
    folder: Path,
    version: int = 1,
    *,
    weights: bytes = b"weights",
    warmup: bytes = b"\0" * 16,
    interface: Interface = INTERFACE,
) -> Bundle:
    """Seal a bundle of the model 'net'."""
    path = folder / f"bundle-{version}-{len(list(folder.glob('bundle-*')))}"
    (path / "warmup").mkdir(parents=True)
    (path / "model.onnx").write_bytes(weights)
    name = f"{warmup.hex()[:8]}.bin"
    (path / "warmup" / name).write_bytes(warmup)
    inputs = [WarmupInput(interface.inputs[0], (4,), name)]
    config = build_config("net", version, conversion(interface), max_batch_size=8, warmup=inputs)
    (path / CONFIG).write_text(render(config))
    bundle = Bundle.seal(
        path,
        {
            "model": "net",
            "version": version,
            "format": "onnx",
            "backend": "onnxruntime",
            "filename": "model.onnx",
            "interface": interface.as_dict(),
            "batching": {"mode": "dynamic", "max_batch_size": 8, "rows": None},
        },
    )
    (path / REPORT).write_text(f'{{"bundle": "{bundle.sha256}", "parity": {{"passed": true}}}}')
    return bundle
