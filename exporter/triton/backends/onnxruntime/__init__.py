"""The stand-in for NVIDIA's onnxruntime backend; Triton imports ``model`` from this folder."""
