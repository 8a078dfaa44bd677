from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import pytest

from exporter.errors import ConflictError, UnavailableError, UsageError
from exporter.repository.lease import LEASE_SECONDS, Lease
from exporter.repository.object_store import ObjectStore
from exporter.system.processes import ProcessId
from tests.support.moto_s3 import CONTEXT, S3, process, store_at

FOLDER = ".models.stlab/net"


def locks(s3: S3) -> list[str]:
    prefix = f"production/{FOLDER}/"
    return [name.removeprefix(prefix) for name in s3.objects() if name.startswith(prefix)]


@pytest.fixture
def store(s3: S3) -> ObjectStore:
    return store_at(s3.url())


def take(store: ObjectStore, seconds: float = 60.0) -> Any:
    return Lease.open(store, FOLDER, "net", seconds)


def hold(url: str, seconds: float, pipe: Connection) -> None:
    """Take the lock, and check it whenever asked to."""
    with Lease.open(store_at(url), FOLDER, "net", seconds) as lease:
        pipe.send("held")
        while pipe.recv() == "check":
            try:
                lease.check()
            except ConflictError as error:
                pipe.send(error.message)
            else:
                pipe.send("held")
    pipe.send("released")


class Other:
    """Another process that holds the lock."""

    def __init__(self, s3: S3, seconds: float = 60.0) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = process(hold, s3.url(), seconds, theirs)
        assert self.pipe.recv() == "held"

    def ask(self, what: str) -> str:
        self.pipe.send(what)
        return str(self.pipe.recv())

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()


@pytest.fixture
def others() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_one_at_a_time(s3: S3, store: ObjectStore) -> None:
    with take(store) as lease:
        lease.check()
        with pytest.raises(ConflictError) as caught, take(store_at(s3.url())):
            pytest.fail("two at once")
        lease.check()
        assert f"process {os.getpid()} on " in caught.value.message
        rest = re.search(r"its lock expires in (\d+) s unless", caught.value.message)
        assert rest, caught.value.message
        assert 0 < int(rest[1]) <= LEASE_SECONDS + 1
        with Lease.open(store, ".models.stlab/other", "other"):
            pass  # another model is another matter
    with take(store) as lease:
        lease.check()
    assert locks(s3) == ["lock-000002"], "a tombstone, and no probes"


def test_an_error_gives_it_back(store: ObjectStore) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), take(store):
            raise ZeroDivisionError


def contend(url: str, ready: Any, results: Any) -> None:
    store, won = store_at(url), 0
    store.list("")
    ready.wait()
    for _ in range(3):
        try:
            with Lease.open(store, FOLDER, "net"):
                # Whoever creates it must be alone until it is deleted.
                assert store.create("inside", str(os.getpid()).encode()), "two at once"
                store.delete("inside")
                won += 1
        except ConflictError:
            continue
        except Exception:
            results.put(-1000)
            raise
    results.put(won)


def test_many_at_once(s3: S3) -> None:
    count = 6
    ready, results = CONTEXT.Barrier(count), CONTEXT.Queue()
    contenders = [process(contend, s3.url(), ready, results) for _ in range(count)]
    won = [results.get(timeout=60) for _ in contenders]
    for contender in contenders:
        contender.join()
    assert sum(won) >= 1, won
    assert min(won) >= 0, "two held it at once"
    assert len(locks(s3)) == 1


def test_a_holder_that_was_killed_here_blocks_nobody(s3: S3, store: ObjectStore) -> None:
    other = Other(s3)
    other.kill()
    before = time.monotonic()
    with take(store) as lease:
        lease.check()
    assert time.monotonic() - before < LEASE_SECONDS / 2
    assert locks(s3) == ["lock-000002"]


def test_a_number_that_another_process_has_now_is_not_the_holder(
    s3: S3, store: ObjectStore
) -> None:
    me = ProcessId.this_process()
    assert not me.has_died()
    earlier = ProcessId.read({**me.as_dict(), "started": "1"})
    assert earlier.has_died()
    for elsewhere in ({"host": "elsewhere"}, {"boot": "another"}, {"namespace": "pid:[1]"}):
        assert not ProcessId.read({**earlier.as_dict(), **elsewhere}).has_died()
    assert not ProcessId.read({}).has_died()


def test_a_holder_elsewhere_that_is_silent_for_a_lease_is_followed(
    s3: S3, store: ObjectStore
) -> None:
    lock = f"production/{FOLDER}/lock-000041"
    s3.put(lock, b'{"pid": 7, "host": "elsewhere", "seconds": 60}')
    with pytest.raises(ConflictError, match="process 7 on elsewhere"), take(store):
        pytest.fail("it may live")
    s3.age(lock, 180)
    with take(store) as lease:
        lease.check()
        assert locks(s3) == ["lock-000042"]


def test_a_lock_that_nobody_can_read_is_somebodys(s3: S3, store: ObjectStore) -> None:
    s3.put(f"production/{FOLDER}/lock-000001", b"\xff")
    with pytest.raises(ConflictError, match="an unknown machine"), take(store):
        pytest.fail("it may be held")


def test_a_lease_is_renewed(s3: S3, store: ObjectStore, others: ExitStack) -> None:
    other = Other(s3, seconds=8.0)
    others.callback(other.kill)
    time.sleep(8.2)
    with pytest.raises(ConflictError, match="is running"), take(store):
        pytest.fail("it lives")
    assert other.ask("check") == "held"
    assert other.ask("end") == "released"
    with take(store) as lease:
        lease.check()


def test_a_holder_that_stood_still_notices(s3: S3, store: ObjectStore, others: ExitStack) -> None:
    other = Other(s3, seconds=1.0)
    others.callback(other.kill)
    other.signal(signal.SIGSTOP)
    with pytest.raises(ConflictError), take(store):
        pytest.fail("it is not over")
    time.sleep(1.0)  # by the holder's clock
    s3.age(f"production/{FOLDER}/lock-000001", 2)  # and by the store's
    with take(store) as lease:
        other.signal(signal.SIGCONT)
        assert "was lost" in other.ask("check")
        assert other.ask("end") == "released"
        lease.check()
        assert locks(s3) == ["lock-000002"], "it took nothing from its successor"


def test_a_lease_that_ended_is_not_renewed_though_nobody_took_it(s3: S3, others: ExitStack) -> None:
    other = Other(s3, seconds=0.5)
    others.callback(other.kill)
    other.signal(signal.SIGSTOP)
    time.sleep(0.6)
    other.signal(signal.SIGCONT)
    assert "was lost" in other.ask("check")


def test_a_slow_one_that_creates_an_old_number_does_not_hold_it(
    s3: S3, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with take(store):
        pass
    create = ObjectStore.create

    def slowly(self: ObjectStore, name: str, content: bytes) -> bool:
        monkeypatch.setattr(ObjectStore, "create", create)
        for _ in range(2):  # meanwhile two others came and went
            with take(store_at(s3.url())):
                pass
        return create(self, name, content)

    monkeypatch.setattr(ObjectStore, "create", slowly)
    with take(store):
        assert locks(s3) == ["lock-000004"]


def test_a_lost_answer_is_not_taken_for_another_holder(
    s3: S3, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = store._files
    pipe_file = files.pipe_file
    lost = []

    def loses_its_answer(path: str, value: bytes, **options: Any) -> None:
        pipe_file(path, value, **options)
        if not lost:
            lost.append(path)
            pipe_file(path, value, **options)  # what is below asks again

    monkeypatch.setattr(files, "pipe_file", loses_its_answer)
    with take(store) as lease:
        lease.check()
    assert lost


def test_a_store_without_conditional_writes_is_refused(
    s3: S3, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = store._files
    pipe_file = files.pipe_file

    def ignorant(path: str, value: bytes, **options: Any) -> None:
        options.pop("mode", None)
        pipe_file(path, value, **options)

    monkeypatch.setattr(files, "pipe_file", ignorant)
    with pytest.raises(UsageError, match="ignores conditional writes"), take(store):
        pytest.fail("the lock was acquired")


def test_a_silent_store_does_not_keep_the_holder_from_ending(s3: S3, store: ObjectStore) -> None:
    with take(store, 1.0) as lease:
        s3.is_silent = True
        with pytest.raises((UnavailableError, ConflictError)):
            lease.check()
    assert not any(thread.name == "lease" for thread in threading.enumerate())
