"""Check what is installed, reachable and allowed."""
