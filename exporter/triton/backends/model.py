"""The module that Triton imports from a backend's folder."""

import importlib
from pathlib import Path

# ``stlab_backends`` exists in the folder that the backend is laid out in, not in this tree.
_instance = importlib.import_module(f"stlab_backends.{Path(__file__).parent.name}.instance")
TritonPythonModel = _instance.TritonPythonModel
