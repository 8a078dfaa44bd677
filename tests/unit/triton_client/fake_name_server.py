"""A fake name server on loopback: it answers every question with the same addresses, or never."""

from __future__ import annotations

import socket
import struct
import threading


class FakeNameServer:
    """Answers questions for IPv4 addresses.

    Args:
        addresses: The addresses of every name; none at all leaves every question unanswered.

    Attributes:
        questions: How many have come.
    """

    def __init__(self, *addresses: str) -> None:
        self.questions = 0
        self._addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def target(self, port: int, name: str = "triton.test") -> str:
        """Return a gRPC target whose name this server looks up."""
        return f"dns://127.0.0.1:{self._port}/{name}:{port}"

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self._port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            if not question:
                return
            self.questions += 1
            if self._addresses:
                self._socket.sendto(self._answer(question), sender)

    def _answer(self, question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        (kind,) = struct.unpack_from(">H", question, end - 4)
        found = self._addresses if kind == 1 else ()
        head = question[:2] + struct.pack(">5H", 0x8180, 1, len(found), 0, 0)
        records = [
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address)
            for address in found
        ]
        return head + question[12:end] + b"".join(records)
