"""Triton: its releases, an embedded server with stand-in backends, and connections to servers."""
