"""Run a served model on inputs from a file."""
