"""Export a version: pull, build, prove, publish, and move the alias."""
