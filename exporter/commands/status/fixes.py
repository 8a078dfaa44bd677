"""The commands that mend what `stlab status` finds, as a shell takes them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from exporter.repository import is_url

__all__ = ["FixCommands"]


@dataclass(frozen=True, slots=True)
class FixCommands:
    """Commands about one model, one repository and its servers.

    Attributes:
        model: The registered model.
        repository: The repository, as the user named it.
        urls: The servers, likewise.
    """

    model: str
    repository: str
    urls: tuple[str, ...] = ()

    def prove(self, alias: str, version: int) -> str:
        """Return the export that proves a version and lets an alias name it."""
        return self._command("stlab-export", alias, "--version", version)

    def restore(self, alias: str, version: int) -> str:
        """Return the rollback that brings back the very bundle that an alias took of a version.

        An export would take today's options for those of then, and of ``prod`` what ``staging``
        names today.
        """
        return self._command("stlab rollback", alias, "--to", version)

    def replace(self, alias: str, version: int) -> str:
        """Return the same for a version in whose place something lies that no export overwrites.

        Args:
            alias: The alias.
            version: The version.
        """
        restore = self.restore(alias, version)
        if is_url(self.repository):
            return restore
        root = Path(self.repository)
        asides = (root.parent / f"{self.model}-{version}-aside{number or ''}" for number in count())
        # Into a folder that is there mv would move it.
        aside = next(path for path in asides if not path.exists())
        move = ["mv", str(root / self.model / str(version)), str(aside)]
        return f"{shlex.join(move)} && {restore}"

    def forget(self, alias: str) -> str:
        """Return the command that takes an alias away that no command of ours can set."""
        code = (
            "from mlflow import MlflowClient; "
            f"MlflowClient().delete_registered_model_alias({self.model!r}, {alias!r})"
        )
        return shlex.join(["python", "-c", code])

    def drop_unaliased(self) -> str:
        """Return the command that takes versions out of service that no alias names."""
        return shlex.join(["stlab", "prune", self.model, "--nameless", *self._where()])

    def _command(self, program: str, alias: str, option: str, version: int) -> str:
        asked = [self.model, "--alias", alias, option, str(version)]
        return f"{program} {shlex.join([*asked, *self._where()])}"

    def _where(self) -> list[str]:
        urls = (part for url in self.urls for part in ("--triton-url", url))
        return ["--repository", self.repository, *urls]
