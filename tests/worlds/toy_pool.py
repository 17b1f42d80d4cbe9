"""Workers that are plain objects: they die, hang and lose things on order."""

from __future__ import annotations

import time

from fedsim.executors.pool import WorkerLost
from fedsim.executors.queue import JobQueue
from fedsim.jobs import Job
from worlds.executor_worlds import LOCAL

__all__ = ["Toy", "batches_of", "queue"]


class Toy:
    """A pool without processes: a worker does its calls when it is waited for, one a turn.

    Args:
        deadly: clients that take their worker with them, in whatever company.
        crowded: these kill only together: a call that holds all of them.
        unlucky: client -> workers that die with it, before one does not.
        mute: clients that are never answered; once_mute: only the first call with them is not.
        losing: client -> times that an object is lost with it.
        stillborn: workers that never live; slow_start_s: seconds that others take to start.
    """

    def __init__(
        self,
        deadly=(),
        mute=(),
        stillborn=0,
        *,
        crowded=(),
        unlucky=None,
        once_mute=(),
        losing=None,
        slow_start_s=0.0,
    ):
        self.deadly, self.mute, self.stillborn = set(deadly), set(mute), stillborn
        self.crowded, self.unlucky, self.losing = set(crowded), dict(unlucky or {}), dict(losing or {})
        self.once_mute = set(once_mute)
        self.slow_start_s, self.born_s = slow_start_s, {}
        self.started, self.refs, self.held = 0, {}, {}
        self.most = 0
        self.submitted, self.restored, self.trouble = [], [], None

    def start(self):
        self.started += 1
        self.held[self.started] = []
        self.born_s[self.started] = time.monotonic() + (self.slow_start_s if self.started > 2 else 0.0)
        return self.started

    def _ref(self, worker, what):
        ref = object()
        self.refs[ref] = (worker, what)
        self.held[worker].append(ref)
        self.most = max(self.most, len(self.held[worker]))
        return ref

    def prepare(self, worker):
        return self._ref(worker, "prepare")

    def submit(self, worker, verb, items):
        ref = self._ref(worker, items)
        self.submitted.append(self.clients(ref))
        return ref

    def wait(self, refs, timeout_s):
        ready = []
        for worker in list(self.held):
            turn = [ref for ref in self.held[worker] if ref in refs][:1]
            if time.monotonic() < self.born_s[worker]:
                continue
            if turn and self.refs[turn[0]][1] != "prepare" and self.mute & set(self.clients(turn[0])):
                continue
            if turn and self.refs[turn[0]][1] != "prepare" and self.once_mute & set(self.clients(turn[0])):
                continue
            ready += turn
        if not ready:
            time.sleep(min(timeout_s, 0.05) if self.slow_start_s else timeout_s)
        return ready

    def clients(self, ref):
        what = self.refs[ref][1]
        return [] if isinstance(what, str) else [job.client for job in what]

    def fetch(self, ref):
        worker, what = self.refs[ref]
        if worker not in self.held:
            raise WorkerLost("it was killed")
        self.held[worker].remove(ref)
        if what == "prepare":
            if worker <= self.stillborn:
                raise WorkerLost("it never lived")
            return f"toy {worker}", None
        clients = self.clients(ref)
        if self._dies_with(clients):
            del self.held[worker]
            raise WorkerLost("its process died")
        for client in clients:
            if self.losing.get(client, 0) > 0:
                self.losing[client] -= 1
                raise WorkerLost("an object was lost", objects=True)
        return clients

    def _dies_with(self, clients):
        if self.deadly & set(clients) or (self.crowded and self.crowded <= set(clients)):
            return True
        for client in clients:
            if self.unlucky.get(client, 0) > 0:
                self.unlucky[client] -= 1
                return True
        return False

    def stop(self, worker):
        for ref in self.held.pop(worker, ()):
            self.once_mute -= set(self.clients(ref))

    def restore(self, items):
        self.restored.append([job.client for job in items])

    def check(self):
        if self.trouble is not None:
            raise self.trouble

    def facts(self):
        return "toys"


def queue(pool, clients=12, workers=2, watchdog_s=30.0):
    """A queue with a call for each client."""
    return batches_of(pool, clients, size=1, workers=workers, watchdog_s=watchdog_s)


def batches_of(pool, clients=12, size=4, workers=2, watchdog_s=30.0):
    """A queue with calls of `size` clients each."""
    jobs = JobQueue(pool, workers, watchdog_s)
    jobs.wait_until_ready()
    cuts = [range(at, min(at + size, clients)) for at in range(0, clients, size)]
    calls = [jobs.submit("train", [Job(k, 0, None, LOCAL, 0) for k in cut]) for cut in cuts]
    return jobs, calls
