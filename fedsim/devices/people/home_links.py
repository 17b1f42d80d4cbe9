"""Links that follow the place: the Wi-Fi of the home while a device is there, a cellular link of its own while it is out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Bools, Floats, Ints
from fedsim.devices.availability import BLOCK, Availability
from fedsim.devices.draws import allot, choose
from fedsim.devices.link_rates import Generated, LinkRates
from fedsim.devices.presets import Recipe
from fedsim.elementary import exp
from fedsim.errors import ProfileError, message
from fedsim.network.base import Direction, Rates
from fedsim.network.traces import ConstantRate
from fedsim.rng import stream


@dataclass(frozen=True)
class PlaceRate:
    """The rate of one link that follows the place.

    Attributes:
        home, away: the rates in the two places.
        at_home: when the clients are at home.
        client: whose link it is.
    """

    home: Rates
    away: Rates
    at_home: Availability
    client: int

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on."""
        return (self.home if self._window(t_s)[0] <= t_s else self.away).rate(t_s)

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step, or change of place, later than `t_s`."""
        start_s, stop_s = self._window(t_s)
        if start_s <= t_s:
            return min(stop_s, self.home.next_change(t_s))
        return min(start_s, self.away.next_change(t_s))

    def _window(self, t_s: float) -> tuple[float, float]:
        return self.at_home.window(self.client, t_s)


@dataclass(frozen=True, eq=False)
class ByPlace:
    """The links of a population that follow the place.

    Attributes:
        home: rates over time of the links at home; None: they never change.
        home_means: direction -> (n,) their mean rates [bytes/s].
        away: rates over time of the links elsewhere; None: they never change.
        away_means: direction -> (n,) their mean rates [bytes/s].
        at_home: when the clients are at home.
        moves: (n,) whose links follow the place: they are carried, and there is Wi-Fi at home.
    """

    home: LinkRates | None
    home_means: dict[Direction, Floats]
    away: LinkRates | None
    away_means: dict[Direction, Floats]
    at_home: Availability
    moves: Bools

    def of(self, client: int, direction: Direction) -> Rates | None:
        """Return the rate of one link; None: it never changes."""
        home = None if self.home is None else self.home.of(client, direction)
        if not self.moves[client]:
            return home
        away = None if self.away is None else self.away.of(client, direction)
        return PlaceRate(
            home or ConstantRate(float(self.home_means[direction][client])),
            away or ConstantRate(float(self.away_means[direction][client])),
            self.at_home,
            client,
        )

    def means(self) -> dict[Direction, Floats]:
        """Return the mean rates over time, direction -> (n,) [bytes/s]."""
        share = np.where(self.moves, self.at_home.share(), 1.0)
        return {
            way: share * self.home_means[way] + (1.0 - share) * self.away_means[way]
            for way in self.home_means
        }


def by_place(
    recipe: Recipe,
    home: LinkRates | None,
    home_means: dict[Direction, Floats],
    at_home: Availability,
    moves: Bools,
    seed: int,
    *,
    exact: bool,
) -> ByPlace:
    """Return links that follow the place.

    Args:
        recipe: its cellular networks, by their shares, are those that devices have elsewhere.
        home: rates over time of the links at home, and if there are any, also elsewhere; None: they never change.
        home_means: direction -> (n,) their mean rates [bytes/s].
        at_home: when the clients are at home.
        moves: (n,) whose links follow the place.
        seed: address of the randomness.
        exact: every cellular network has its share to within one client.

    Raises:
        ProfileError: no cellular network.
    """
    nets = recipe.networks
    weight = np.where(nets.cellular, recipe.network_weight, 0.0)
    if not weight.sum() > 0:
        where, what = f"{nets.shares.where}: access", "no network is cellular"
        fix = "add a row with access cellular and a share, or set population.links: one"
        if np.any(nets.cellular):
            where, what = (
                "population.links",
                "by-place needs a cellular network with a share, and none has one",
            )
            fix = "give one a share (of a region: phone-link cellular, and phones), or set population.links: one"
        raise ProfileError(message(where, what, fix=fix))
    chance, z = _draws(len(moves), seed)
    link = allot(weight, chance) if exact else choose(weight, chance)
    means = _rates(recipe, link, z)
    # Where rates vary at home, they do so elsewhere.
    away = None if home is None or nets.laws is None else Generated(seed, nets.laws, link, means)
    return ByPlace(home, home_means, away, means, at_home, moves)


def _rates(recipe: Recipe, link: Ints, z: Floats) -> dict[Direction, Floats]:
    """Return the mean rates of links of these rows, as those of a population are drawn [bytes/s]."""
    nets, spread = recipe.networks, recipe.spread
    rho = nets.correlation[link]
    z_up = rho * z[0] + np.sqrt(1 - rho**2) * z[1]
    return {
        "down": nets.down_bytes_per_s[link] * exp(spread * nets.down_sigma_ln[link] * z[0]),
        "up": nets.up_bytes_per_s[link] * exp(spread * nets.up_sigma_ln[link] * z_up),
    }


def _draws(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return uniforms (n,) for the networks elsewhere and normals (2, n) for down and up; the first n of a larger draw are the same."""
    chance, z = np.empty(n), np.empty((2, n))
    for block, first in enumerate(range(0, n, BLOCK)):
        rng, mine = stream(seed, "away", block), slice(first, min(first + BLOCK, n))
        size = mine.stop - first
        chance[mine] = rng.random(BLOCK)[:size]
        z[:, mine] = rng.standard_normal((2, BLOCK))[:, :size]
    return chance, z
