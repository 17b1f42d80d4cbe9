"""Components with one bug each, of every seam but the rules': the contract suites must catch them."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import count

import numpy as np

from fedsim.config.problem import Problem
from fedsim.executors.inline import Inline, InlineTicket
from fedsim.optimizers._base import ServerOptimizer
from fedsim.personal.fedper import FedPer
from fedsim.personal.fine_tune import FineTune
from fedsim.protocols.buffered import Buffered
from fedsim.samplers._base import PollingSampler
from fedsim.samplers.uniform import Uniform
from fedsim.tasks.quadratic import Quadratic, QuadraticTask

CALLS = count()
"""What a component must not do: remember something between two calls."""


# protocols ----------------------------------------------------------------------------------------


class Pairs(Buffered):
    """Four clients at work, two updates a commit, however old; right."""

    kind: str = "pairs"
    concurrency: int = 4
    buffer: int = 2

    def run(self, server):
        yield server.timeout(self.patience_s(server))
        yield from super().run(server)

    def patience_s(self, server):
        return 1.0


class SaysFresh(Pairs):
    """Takes stale updates and says that it does not."""

    @property
    def stale(self):
        return False


class SaysOne(Pairs):
    """Says that a commit takes one update."""

    @property
    def updates_per_commit(self):
        return 1


class Dice(Pairs):
    """Begins when the operating system's chance says."""

    def patience_s(self, server):
        return random.SystemRandom().uniform(10.0, 60.0)


class Looks(Pairs):
    """Lets the model decide when to begin, and does not say so."""

    def patience_s(self, server):
        return 10.0 + 20.0 * float(np.abs(server.vector).sum())


class Asks(Pairs):
    """Has problems with every number of clients."""

    def problems(self, clients):
        return [Problem(("protocol", "cohort"), "asks for too many", "ask for fewer", clients + 1)]


# samplers -----------------------------------------------------------------------------------------


class Repeats(Uniform):
    """Draws with replacement."""

    kind: str = "repeats"

    def choose(self, idle, n, rng, seen):
        return np.full(n, idle[0])


class Strangers(Uniform):
    """Takes clients by their place among the idle ones for their numbers."""

    kind: str = "strangers"

    def choose(self, idle, n, rng, seen):
        return np.arange(n)


class TooFew(Uniform):
    """One client is enough."""

    kind: str = "too-few"

    def choose(self, idle, n, rng, seen):
        return idle[:1]


class Remembers(Uniform):
    """Takes turns by a counter of its own."""

    kind: str = "remembers"

    def choose(self, idle, n, rng, seen):
        return np.roll(idle, next(CALLS))[:n]


class Sorts(Uniform):
    """Turns the server's array of idle clients round."""

    kind: str = "sorts"

    def choose(self, idle, n, rng, seen):
        idle[:] = idle[::-1].copy()
        return np.sort(idle)[:n]


class GlobalChance(Uniform):
    """Draws from NumPy's global generator, and puts the seed back where it was."""

    kind: str = "global-chance"

    def choose(self, idle, n, rng, seen):
        np.random.seed(0)
        return np.random.permutation(idle)[:n]


class KeepsAll(PollingSampler):
    """Keeps all its candidates."""

    kind: str = "keeps-all"

    def choose(self, idle, n, rng, seen):
        return idle

    def keep(self, clients, losses, n):
        return clients


class KeepsStrangers(KeepsAll):
    """Keeps clients that have not answered."""

    kind: str = "keeps-strangers"

    def keep(self, clients, losses, n):
        return np.array([4])


# server optimisers --------------------------------------------------------------------------------


class Right(ServerOptimizer):
    """x <- x + D; right."""

    kind: str = "right"

    def init(self, size):
        return np.zeros(size)

    def step(self, state, before, after, max_staleness):
        return after.copy(), state


class Gathers(Right):
    """Adds moves to its state in place."""

    kind: str = "gathers"

    def step(self, state, before, after, max_staleness):
        state += after - before
        return after.copy(), state


class Doubles(Right):
    """Gives float64."""

    kind: str = "doubles"

    def step(self, state, before, after, max_staleness):
        return after.astype(np.float64), state


class Creeps(Right):
    """Moves on although nothing has moved."""

    kind: str = "creeps"

    def step(self, state, before, after, max_staleness):
        return after + np.float32(0.01), state


class Against(Right):
    """Takes the move for a gradient."""

    kind: str = "against"

    def step(self, state, before, after, max_staleness):
        return before - (after - before), state


# personalisation ----------------------------------------------------------------------------------


class SendsPrivates(FedPer):
    """Keeps the last block to itself and sends it all the same."""

    kind: str = "sends-privates"

    def offer(self, home, offer):
        return offer


class LosesPrivates(FedPer):
    """Never puts the private part back."""

    kind: str = "loses-privates"

    def composed(self, home, vector, own):
        return np.array(vector)


class Restless(FineTune):
    """Trains another visit after the run each time it is asked."""

    kind: str = "restless"

    def after(self, home, job, own):
        return replace(job, visit=next(CALLS))


class SecretTraining(FineTune):
    """Trains a second time in a visit, and the clock does not know."""

    kind: str = "secret-training"

    def beside(self, home, job, own):
        return job


# tasks --------------------------------------------------------------------------------------------


class ByPlace(QuadraticTask):
    def train(self, jobs):
        return [replace(u, end=u.end + np.float32(i)) for i, u in enumerate(super().train(jobs))]


class TooManyTokens(QuadraticTask):
    def tokens(self, client, local):
        return super().tokens(client, local) + 1


class InPlace(QuadraticTask):
    def train(self, jobs):
        updates = super().train(jobs)
        jobs[0].start[:] = updates[0].end
        return updates


class NeverFinite(QuadraticTask):
    def metrics(self, sums):
        return {"loss": float("nan")}


class TwoBeginnings(QuadraticTask):
    def initial(self):
        return super().initial() + np.float32(next(CALLS))


class OtherThere(QuadraticTask):
    """Pickled, it becomes a plain task, which does not shift its ends."""

    def __reduce__(self):
        return QuadraticTask, super().__reduce__()[1]

    def train(self, jobs):
        return [replace(u, end=u.end + np.float32(0.5)) for u in super().train(jobs)]


class Company(Quadratic):
    """A client's update depends on its place in the batch."""

    kind: str = "company"
    runtime: type = ByPlace

    def build(self, context):
        task = super().build(context)
        made = type(self).model_fields["runtime"].default
        return made(task.config, task.clients, task.seeds, task.lora, task.batch)


class WrongTokens(Company):
    """Announces one token more than it trains on."""

    runtime: type = TooManyTokens


class WritesStart(Company):
    """Trains in the array that it was given."""

    runtime: type = InPlace


class NotFinite(Company):
    """Its metric is not a number."""

    runtime: type = NeverFinite


class MovingStart(Company):
    """Version 0 is another one at every call."""

    runtime: type = TwoBeginnings


class LosesItself(Company):
    """Is another task on the other side of a process."""

    runtime: type = OtherThere


# executors ----------------------------------------------------------------------------------------


class Reverses(Inline):
    """Gives a batch's results in the order in which they came to an end."""

    def train(self, batch):
        return InlineTicket(self._task, "train", tuple(reversed(batch)))


class Idle(Inline):
    """Has no workers."""

    workers = 0


class Silent(Inline):
    """Trains somebody else where a client cannot be trained."""

    def train(self, batch):
        return super().train([replace(job, client=job.client % self._task.clients) for job in batch])
