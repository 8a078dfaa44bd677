"""Publish, activate and verify a proven bundle, and undo all of it on failure."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import Bundle
from exporter.errors import OutcomeUnknownError, StlabError
from exporter.names import ARCHIVED
from exporter.progress import Steps
from exporter.registry import Selection, is_current, repository_of
from exporter.repository import Repository
from exporter.rollout.live_servers import answers, reload, unload, verify

__all__ = ["Rollout", "is_rolled_out", "versions_to_keep"]


def is_rolled_out(
    repository: Repository, selection: Selection, alias: str, bundle: Bundle, urls: Sequence[str]
) -> bool:
    """Whether the alias, the repository and every server have exactly this bundle already.

    Raises:
        UnavailableError: The repository or a server does not answer.
    """
    return (
        is_current(selection, alias, bundle.sha256)
        and repository.is_serving(bundle)
        and all(answers(url, bundle) for url in urls)
    )


def versions_to_keep(
    repository: Repository,
    model: str,
    alias: str,
    aliases: Mapping[str, int],
    versions: Mapping[int, Mapping[str, str]] | None = None,
) -> set[int]:
    """Return the versions that a repository serves for other aliases, which stay served.

    Args:
        repository: The repository.
        model: The model.
        alias: The alias that is rolled out.
        aliases: The version that every alias points to now.
        versions: The tags of every version. If given, the versions of aliases that were rolled out
            to another repository are not kept: a rollback must not leave them served.
    """
    here = {"", repository.identity()}
    aliased = {
        version
        for name, version in aliases.items()
        if name not in {alias, ARCHIVED}
        and (versions is None or repository_of(versions.get(version, {}), name) in here)
    }
    return set(repository.possibly_served(model)) & aliased


@dataclass(frozen=True, slots=True)
class Rollout:
    """The targets of a rollout.

    Attributes:
        repository: The repository to publish to.
        urls: gRPC addresses of the servers to activate on.
        workdir: The folder from the repository's workspace.
    """

    repository: Repository
    urls: Sequence[str]
    workdir: Path

    @contextlib.contextmanager
    def apply(
        self, bundle: Bundle, other_versions: Collection[int], steps: Steps
    ) -> Iterator[None]:
        """Publish, activate and verify, then run the block; undo if a step or the block fails.

        Raises:
            OutcomeUnknownError: Whether the block moved the alias is unknown; the bundle stays
                published and served, and the next run finds out.
            StlabError: A step failed; repository and servers are as before.
        """
        repository = self.repository
        is_new_model = not repository.possibly_served(bundle.model)
        with contextlib.ExitStack() as undo:
            with steps("publish"):
                repository.merged_config(bundle, other_versions)  # raises if they do not fit
                publication = repository.publish(bundle, self.workdir)
                if publication is not None:
                    undo.callback(repository.unpublish, bundle, publication, self.workdir)
            with steps("activate"):
                previous = repository.activate(bundle, other_versions, self.workdir)
                undo.callback(self._deactivate, bundle, previous, is_new_model=is_new_model)
                for url in self.urls:
                    reload(url, bundle)
            with steps("verify"):
                for url in self.urls:
                    verify(url, bundle)
            try:
                yield
            except OutcomeUnknownError:
                undo.pop_all()
                raise
            undo.pop_all()

    def _deactivate(self, bundle: Bundle, previous: Path | None, *, is_new_model: bool) -> None:
        self.repository.restore_config(bundle.model, previous)
        for url in self.urls:
            with contextlib.suppress(StlabError):
                if is_new_model:
                    unload(url, bundle.model)
                else:
                    reload(url, bundle, must_serve=False)
