"""The export command: pull, build, prove, publish, and move the alias."""
