"""What the commands do, each from a request to a result: the Python API, without Typer and rich."""
