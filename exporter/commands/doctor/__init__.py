"""The doctor command: check what is installed, reachable and writable."""
