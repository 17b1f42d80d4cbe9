"""Whether Ray's head is still there. Where it is gone, Ray itself ends the driver's process after a minute, without a word.

Takes the `ray` module as an argument.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from types import ModuleType

from fedsim.errors import HostError, message
from fedsim.executors.ray_patches import dead_processes

NEEDED = {"gcs_server", "raylet"}
"""Processes of a Ray of our own without which nothing goes on, as Ray names them."""
EVERY_S = 2.0
"""Real seconds between two looks at the head's port."""
KNOCK_S = 2.0
"""Patience with the port."""
GONE_S = 20.0
"""Seconds without an answer of the port until the head counts as gone; Ray itself waits for 60 s and is no more, then."""


class Head:
    """Watches the processes of a Ray of our own, and the port of a cluster's head.

    Attributes:
        is_gone: it was found gone: Ray must not be asked for anything any more.
    """

    def __init__(self, ray: ModuleType) -> None:
        self.is_gone = False
        self._ray = ray
        self._port: tuple[str, int] | None = None
        self._looked_s = self._answered_s = time.monotonic()
        with suppress(Exception):
            host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
            self._port = (host.strip("[]"), int(port))

    def check(self) -> None:
        """Look, unless that was done a moment ago.

        Raises:
            HostError: the head is gone, and the run cannot go on.
        """
        dead = sorted(NEEDED & set(dead_processes(self._ray)))
        if dead:
            self._refuse(f"a process that it cannot do without has ended ({', '.join(dead)})")
        now_s = time.monotonic()
        if self._port is None or now_s - self._looked_s < EVERY_S:
            return
        if now_s - self._looked_s > GONE_S:  # nobody has looked for long: that is no silence of the head's
            self._answered_s = now_s
        self._looked_s = now_s
        try:
            socket.create_connection(self._port, timeout=KNOCK_S).close()
            self._answered_s = time.monotonic()
        except OSError as problem:
            silent_s = time.monotonic() - self._answered_s
            if silent_s > GONE_S:
                self._refuse(f"its head has not answered for {silent_s:.0f} s ({problem})")

    def _refuse(self, what: str) -> None:
        self.is_gone = True
        fix = (
            "`fedsim resume` goes on from the last checkpoint, once Ray starts (of a cluster: is there) again"
        )
        raise HostError(message("ray", what, fix=fix))
