"""Repositories of both kinds, and a look behind them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exporter.repository import LocalRepository, Repository
from exporter.triton.model_config import parse
from tests.support.moto_s3 import S3, shared_at


class Shelf(Protocol):
    """A repository, its files, and the folder that its workspace lends."""

    repository: Repository
    work: Path

    def content(self) -> Mapping[str, bytes]:
        """Every file of the repository."""

    def put(self, name: str, content: bytes) -> None: ...

    def delete(self, name: str) -> None: ...


@dataclass
class LocalShelf:
    root: Path
    work: Path

    @property
    def repository(self) -> Repository:
        return LocalRepository(self.root)

    def content(self) -> Mapping[str, bytes]:
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def put(self, name: str, content: bytes) -> None:
        self.delete(name)  # the bundle's own file is linked to it
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


@dataclass
class ObjectShelf:
    s3: S3
    repository: Repository
    work: Path

    def content(self) -> Mapping[str, bytes]:
        prefix = "production/models/"
        return {
            name.removeprefix(prefix): content
            for name, content in self.s3.objects().items()
            if name.startswith(prefix)
        }

    def put(self, name: str, content: bytes) -> None:
        self.s3.put(f"production/models/{name}", content)

    def delete(self, name: str) -> None:
        self.s3.delete(f"production/models/{name}")


@contextmanager
def local_shelf(folder: Path) -> Iterator[Shelf]:
    root = folder / "repository"
    with LocalRepository(root).workspace("net") as work:
        yield LocalShelf(root, work)
    shutil.rmtree(root, ignore_errors=True)


@contextmanager
def object_shelf(s3: S3) -> Iterator[Shelf]:
    repository = shared_at(s3.url())
    with repository.workspace("net") as work:
        yield ObjectShelf(s3, repository, work)


def served(shelf: Shelf) -> list[int]:
    text = shelf.content()["net/config.pbtxt"].decode()
    return list(parse(text, where="it").version_policy.specific.versions)
