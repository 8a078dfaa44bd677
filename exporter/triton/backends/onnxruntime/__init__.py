"""The stand-in for NVIDIA's onnxruntime backend.

It refuses at load what NVIDIA's refuses, with a similar message, and answers as that does. The
rules were taken from the observed behaviour of release 24.10 and from the documented
configuration: https://github.com/triton-inference-server/onnxruntime_backend.
"""
