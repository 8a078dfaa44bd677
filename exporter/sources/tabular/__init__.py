"""Shared by the flavors of tables (sklearn, xgboost, lightgbm): the source, and trees as graphs."""
