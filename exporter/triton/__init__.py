"""Triton: what its releases load, a server to run, and the backend that stands in for NVIDIA's."""
