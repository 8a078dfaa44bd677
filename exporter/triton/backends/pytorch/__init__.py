"""The stand-in for NVIDIA's pytorch backend; it runs on the CPU.

It refuses at load what NVIDIA's refuses, with a similar message, and answers as that does. The
rules come from that backend's documentation and sources:
https://github.com/triton-inference-server/pytorch_backend.
"""
