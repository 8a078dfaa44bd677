"""The parity gate: what a candidate answers is compared with what the registry model answers."""
