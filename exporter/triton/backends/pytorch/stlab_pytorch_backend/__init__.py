"""A stand-in for NVIDIA's pytorch backend, as a python-based backend of Triton.

It refuses at load what NVIDIA's refuses, with a like message, and answers what that answers. It
runs on the CPU. The rules come from that backend's documentation and from what its sources do:
https://github.com/triton-inference-server/pytorch_backend.
"""
