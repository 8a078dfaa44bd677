"""Estimators of tables, whatever library they are of: what they take, and how they are written."""
