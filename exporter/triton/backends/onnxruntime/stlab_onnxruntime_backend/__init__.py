"""A stand-in for NVIDIA's onnxruntime backend, as a python-based backend of Triton.

It refuses at load what NVIDIA's refuses, with a like message, and answers what that answers. The
rules were taken from the observed behaviour of release 24.10 and from the documented
configuration: https://github.com/triton-inference-server/onnxruntime_backend.
"""
