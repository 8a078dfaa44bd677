"""Parity: runs the registry model as the reference, and compares a candidate's outputs with it.

`reference_checks.check_reference` makes the `ReferenceSet`, `served` compares a served model with
it, `tolerances` has the tolerance, and `evidence` the verdict.
"""
