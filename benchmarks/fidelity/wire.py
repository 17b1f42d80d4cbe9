"""Frames over TCP: two lengths, a JSON head, a payload. Every transfer is a connection of its own.

So it pays what the clock charges: a handshake, slow start, the payload, and half a round trip.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

LENGTHS = struct.Struct(">II")
PIECE_BYTES = 1 << 16
BACKLOG = 64


def listen(port: int) -> socket.socket:
    """Return a listening socket on every address."""
    return socket.create_server(("", port), backlog=BACKLOG)


def connect(host: str, port: int, congestion: str) -> socket.socket:
    """Open a connection whose sender uses a congestion control by name (`cubic`, `reno`, `bbr`)."""
    opened = socket.socket()
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    opened.connect((host, port))
    return opened


def send(to: socket.socket, head: dict[str, Any], payload: bytes = b"") -> None:
    """Send a frame."""
    plain = json.dumps(head).encode()
    to.sendall(LENGTHS.pack(len(plain), len(payload)) + plain + payload)


def receive(source: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Return the next frame.

    Raises:
        EOFError: the other side closed before it was whole.
    """
    head, payload = LENGTHS.unpack(_exactly(source, LENGTHS.size))
    plain: dict[str, Any] = json.loads(_exactly(source, head))
    return plain, _exactly(source, payload)


def _exactly(source: socket.socket, size: int) -> bytes:
    whole = bytearray()
    while len(whole) < size:
        piece = source.recv(min(PIECE_BYTES, size - len(whole)))
        if not piece:
            raise EOFError(f"connection closed after {len(whole)} of {size} bytes")
        whole += piece
    return bytes(whole)
