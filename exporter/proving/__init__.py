"""Prove a candidate on a real Triton server."""
