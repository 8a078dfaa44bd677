"""The shell commands that fix drift."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from exporter.repository import is_url

__all__ = ["FixCommands"]


@dataclass(frozen=True, slots=True)
class FixCommands:
    """The commands for one model, one repository and its servers.

    Attributes:
        model: The registered model.
        repository: The repository, as the user wrote it.
        urls: The servers, as the user wrote them.
    """

    model: str
    repository: str
    urls: tuple[str, ...] = ()

    def prove(self, alias: str, version: int) -> str:
        """Return the export that proves a version and moves an alias to it."""
        return self._command("stlab-export", alias, "--version", version)

    def restore(self, alias: str, version: int) -> str:
        """Return the rollback that restores the bundle of a version that was promoted to an alias.

        An export would use the current options, and for ``prod`` the current version of
        ``staging``.
        """
        return self._command("stlab rollback", alias, "--to", version)

    def replace(self, alias: str, version: int) -> str:
        """Return the same for a version whose directory no export overwrites: it is moved first."""
        restore = self.restore(alias, version)
        if is_url(self.repository):
            return restore
        root = Path(self.repository)
        targets = (root.parent / f"{self.model}-{version}-aside{n or ''}" for n in count())
        # Not an existing folder: mv would move the directory into it.
        target = next(path for path in targets if not path.exists())
        move = ["mv", str(root / self.model / str(version)), str(target)]
        return f"{shlex.join(move)} && {restore}"

    def delete_alias(self, alias: str) -> str:
        """Return the command that deletes an alias that no stlab command can repair."""
        code = (
            "from mlflow import MlflowClient; "
            f"MlflowClient().delete_registered_model_alias({self.model!r}, {alias!r})"
        )
        return shlex.join(["python", "-c", code])

    def drop_unaliased(self) -> str:
        """Return the command that stops serving versions without an alias."""
        return shlex.join(["stlab", "prune", self.model, "--unaliased", *self._targets()])

    def _command(self, program: str, alias: str, option: str, version: int) -> str:
        arguments = [self.model, "--alias", alias, option, str(version), *self._targets()]
        return f"{program} {shlex.join(arguments)}"

    def _targets(self) -> list[str]:
        urls = (part for url in self.urls for part in ("--triton-url", url))
        return ["--repository", self.repository, *urls]
