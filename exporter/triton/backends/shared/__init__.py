"""What the stand-in backends have in common: instances, execution, parameters, types, errors."""
