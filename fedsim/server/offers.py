"""What a visit would be if it were dispatched now: whom the rule is asked about, what it offers, what that costs."""

from __future__ import annotations

from dataclasses import replace

from fedsim.adapters.payload import NOTHING
from fedsim.aggregators._base import Invitation, Offer
from fedsim.clock.estimate import Estimate, estimate
from fedsim.clock.plan import Plan
from fedsim.cost.work import Work
from fedsim.server.clients import ClientBook
from fedsim.server.polling import poll_work
from fedsim.server.values.versions import Versions


class Offers:
    """Invitations, offers and their work, of the present version."""

    def __init__(self, plan: Plan, versions: Versions, book: ClientBook) -> None:
        """Look at what is planned, at the model, and at what clients have."""
        self._plan, self._versions, self._book = plan, versions, book

    def invitation(self, client: int, rank: int | None = None) -> Invitation:
        """Return whom the rule is asked about; `rank` is the most slots, None: the client's own."""
        book = self._book
        return self._versions.invitation(
            client, book.visits(client), book.last_seen(client), rank, book.last_rank(client)
        )

    def offer(self, invitation: Invitation) -> Offer:
        """Return what the rule offers, less what is private."""
        return self._versions.offer(invitation)

    def work(self, invitation: Invitation, offer: Offer, steps: int | None = None) -> Work:
        """Return what a visit moves and computes; who was polled for this version has it already."""
        client = invitation.client
        if self._book.polled.get(client) == self._versions.number:
            offer = replace(offer, down=NOTHING)
        work = self._plan.work(client, offer, steps=steps, rank=invitation.rank or None)
        return self._still_to_download(client, offer, work)

    def poll_work(self, invitation: Invitation, offer: Offer) -> Work:
        """Return what a poll moves and computes."""
        work = poll_work(self._plan, invitation.client, invitation.rank, offer)
        return self._still_to_download(invitation.client, offer, work)

    def _still_to_download(self, client: int, offer: Offer, work: Work) -> Work:
        """Add the frozen model to a client's first download; leave out what it has got of both."""
        left = self._book.down_bytes(client, self._versions.number, offer.down, work.down_bytes)
        from_cdn = self._plan.experiment.network.backbone_from == "cdn"
        cdn_bytes = self._book.missing_bytes(client) if from_cdn else 0
        same = left == work.down_bytes and not cdn_bytes
        return work if same else replace(work, down_bytes=left, cdn_bytes=cdn_bytes)

    def estimate(self, client: int, now_s: float, *, steps: int | None, rank: int | None) -> Estimate:
        """Return how a visit would go if it began now, alone on its own link, on a cool device.

        It knows the client's window; what outages, battery and heat will do is not foreseen.
        """
        plan, invitation = self._plan, self.invitation(client, rank)
        _, until_s = plan.population.availability.plain.window(client, now_s)
        return estimate(
            plan.population.profile(client),
            self.work(invitation, self.offer(invitation), steps),
            now_s,
            until_s,
            compute=plan.experiment.compute,
            tail=plan.experiment.energy.tail,
            network=plan.experiment.network,
        )
