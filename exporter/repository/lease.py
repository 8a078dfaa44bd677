"""The lock of a model on an object store: a lease, since nobody there notices that a holder died.

A lock is an object ``lock-000042`` beside the repository. It is created only if it is not there
(If-None-Match), which the store decides, so that of all who try one succeeds. Numbers only grow:

- The lock of the highest number is the one that counts. Whoever wants it creates the next number,
  and holds it only if it still is the highest once it is there: a slow one may have created a
  number that was deleted meanwhile.
- Who gives it back leaves it there as a tombstone, and the next holder deletes what lies below its
  own, so that there is always a highest one to count from.

A holder writes its lock anew every quarter of the lease. It is dead for the others where that did
not happen for a whole lease *by the store's clock*: a probe object is written, and only then is the
time of the lock read, so that a renewal between the two is seen. Store clocks count in seconds,
hence one second of grace. A holder that has died on this very machine is told by the kernel.

The holder itself measures from before it asked for its last renewal, by a clock that goes on while
the machine sleeps, so that its lease ends for itself before it ends for others. A lease that has
ended is never renewed: others may have seen its end already. Before something changes that others
see, `Lease.check` asks whether the number still is the highest, and for enough time left for one
more request. What is not covered is a process that stands still between this check and its very
next request for longer than a third of a lease: object stores take no condition on another object.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from exporter.errors import ConflictError, StlabError, UsageError
from exporter.system.processes import ProcessId
from exporter.untrusted import UNFIT, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.repository.object_store import ObjectStore

__all__ = ["LEASE_SECONDS", "Lease"]

LEASE_SECONDS = 60.0
_LONGEST_SECONDS = 3600.0
_GRACE_SECONDS = 1.0
_LOCK = re.compile(r"lock-([0-9]{6,18})")
_TRIES = 8
_RENEWALS, _RESERVE = 4, 3


class Lease:
    """A model's lock on an object store, while this process holds it."""

    def __init__(self, locks: _Locks, number: int, content: dict[str, Any], since: float) -> None:
        self._locks = locks
        self._number = number
        self._content = content
        self._seconds = float(content["seconds"])
        self._end = since + self._seconds
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    @contextmanager
    def open(
        cls, store: ObjectStore, folder: str, model: str, seconds: float = LEASE_SECONDS
    ) -> Iterator[Lease]:
        """Take the lock of a model, renew it in the background, and give it back at the end.

        Args:
            store: The store.
            folder: Where the model's locks lie.
            model: What the lock is of, for messages.
            seconds: How long it outlives a holder that died elsewhere.

        Raises:
            ConflictError: Another exporter holds it; it is named.
            UsageError: The store does not honour conditional writes.
        """
        locks = _Locks(store, folder, model)
        content = {
            "seconds": seconds,
            "token": uuid.uuid4().hex,
            **ProcessId.this_process().as_dict(),
        }
        number, since = locks.take(content)
        lease = cls(locks, number, content, since)
        try:
            lease._renewer.start()
            locks.clean(number)
            yield lease
        finally:
            lease._give_back()

    def check(self) -> None:
        """Make sure that the lock is still held, with time left for one more request.

        Raises:
            ConflictError: It was lost.
            UnavailableError: The store does not say.
        """
        with self._guard:
            if self._left() < self._seconds / _RESERVE:
                self._renew()
            if self._left() < self._seconds / _RESERVE or self._locks.highest() != self._number:
                raise self._lost()

    def _left(self) -> float:
        return self._end - _now()

    def _renew(self) -> None:
        asked = _now()
        if self._left() <= 0 or self._locks.highest() != self._number:
            raise self._lost()
        self._locks.write(self._number, self._content)
        if self._left() <= 0:
            raise self._lost()
        self._end = asked + self._seconds

    def _keep(self) -> None:
        """Renew it until it is given back or lost."""
        while not self._over.wait(self._seconds / _RENEWALS):
            with self._guard:
                try:
                    self._renew()
                except ConflictError:
                    self._end = 0.0
                    return
                except StlabError:
                    continue  # the store may come back before the lease ends

    def _give_back(self) -> None:
        self._over.set()
        if self._renewer.is_alive():
            self._renewer.join()
        # Without the store the lease ends by itself.
        with suppress(StlabError):
            if self._locks.highest() == self._number:
                self._locks.write(self._number, {**self._content, "released": True})
            else:
                self._locks.delete(self._number)

    def _lost(self) -> ConflictError:
        return ConflictError(
            f"the lock of '{self._locks.model}' was lost: this process or the store stood still "
            f"for longer than {self._seconds:g} s, and others may work on the model",
            hint="Run the same command again; it finishes what this one began.",
        )


class _Locks:
    """The locks of one model."""

    def __init__(self, store: ObjectStore, folder: str, model: str) -> None:
        self.store = store
        self.folder = folder
        self.model = model

    def take(self, content: dict[str, Any]) -> tuple[int, float]:
        """Create the lock that counts; returns its number, and since when it is held."""
        for _ in range(_TRIES):
            last = self.highest()
            if last and not self._is_free(last):
                continue  # it is gone: others are at it
            number, since = last + 1, _now()
            encoded = _encode(content)
            if not self.store.create(self._name(number), encoded):
                continue
            if self.highest() != number:
                self.delete(number)
                continue
            if self.store.create(self._name(number), encoded + b"\n"):
                self.delete(number)
                raise UsageError(
                    f"the store of {self.store.address} does not honour conditional writes "
                    "(If-None-Match), so that two exports at once could not be told apart",
                    hint="Use a store that does, or a local folder.",
                )
            return number, since
        raise ConflictError(
            f"others take the lock of '{self.model}' again and again",
            hint="Wait for them to end, then run the same command again.",
        )

    def highest(self) -> int:
        """Return the number of the lock that counts; 0 where there was none yet."""
        return max(self._numbers(), default=0)

    def write(self, number: int, content: dict[str, Any]) -> None:
        self.store.replace(self._name(number), _encode(content))

    def delete(self, number: int) -> None:
        self.store.delete(self._name(number))

    def clean(self, number: int) -> None:
        """Delete the locks before one, and the probes of those who asked for it."""
        for name in self.store.list(self.folder):
            found = _LOCK.fullmatch(name)
            if name.startswith("probe-") or (found is not None and int(found[1]) < number):
                self.store.delete(f"{self.folder}/{name}")

    def _is_free(self, number: int) -> bool:
        """Whether a lock may be followed by the next one; False where it is not there any more.

        Raises:
            ConflictError: Its holder lives, as far as anybody can tell.
        """
        raw = self.store.read(self._name(number))
        if raw is None:
            return False
        content = _decode(raw)
        holder = ProcessId.read(content)
        if content.get("released") is True or holder.has_died():
            return True
        age, seconds = self._age(number), float(content["seconds"])
        if age is None:
            return False
        if age > timedelta(seconds=seconds + _GRACE_SECONDS):
            return True
        rest = max(0.0, seconds + _GRACE_SECONDS - age.total_seconds())
        raise ConflictError(
            f"another export of '{self.model}' to this repository is running ({holder}); its lock "
            f"ends in {rest:.0f} s unless it is renewed",
            hint="Wait for it to end, then run the same command again.",
        )

    def _age(self, number: int) -> timedelta | None:
        """Return how old a lock is by the store's clock; None where it is gone."""
        probe = f"{self.folder}/probe-{uuid.uuid4().hex}"
        self.store.replace(probe, b"")
        try:
            now, then = self.store.written(probe), self.store.written(self._name(number))
        finally:
            self.store.delete(probe)
        return None if now is None or then is None else now - then

    def _numbers(self) -> list[int]:
        found = (_LOCK.fullmatch(name) for name in self.store.list(self.folder))
        return [int(match[1]) for match in found if match is not None]

    def _name(self, number: int) -> str:
        return f"{self.folder}/lock-{number:06d}"


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _decode(raw: bytes) -> dict[str, Any]:
    """Return what a lock says; one that cannot be read is somebody's."""
    try:
        content = dict(parse_json(raw))
        seconds = float(content["seconds"])
    except UNFIT:
        return {"seconds": LEASE_SECONDS}
    return {**content, "seconds": seconds if 0 < seconds <= _LONGEST_SECONDS else LEASE_SECONDS}


def _now() -> float:
    """Return seconds by a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
