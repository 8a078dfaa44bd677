"""The operating system: confined processes, resource limits, process identity, GPUs, streams."""
