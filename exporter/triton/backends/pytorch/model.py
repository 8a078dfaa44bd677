"""What Triton imports; everything else lies in a package whose name collides with nobody's."""

import importlib

# Imported by name: for a type checker, this folder is not on the path that Triton puts it on.
TritonPythonModel = importlib.import_module("stlab_pytorch_backend.instance").TritonPythonModel
