"""The infer command: run a served model on inputs from a file."""
