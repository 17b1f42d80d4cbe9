"""Run scenarios in SimGrid: `python3 _in_simgrid.py MODEL < scenarios.json`; Debian's Python, no fedsim."""

import json
import sys
from typing import Any

from simgrid import Actor, Engine, LinkInRoute, Mailbox, NetZone, this_actor  # type: ignore[import-not-found]


def change(link: Any, times_s: list[float], bytes_per_s: list[float]) -> None:
    """Set a link's rate at its breakpoints; SimGrid knows no rate of zero."""
    for at, rate in zip(times_s[1:], bytes_per_s[1:], strict=True):
        this_actor.sleep_until(at)
        link.set_bandwidth(max(rate, 1e-3))


def upload(box: str, size: int, start_s: float, number: int, took_s: list[float]) -> None:
    """Send `size` bytes at `start_s` and note how long it took."""
    this_actor.sleep_until(start_s)
    Mailbox.by_name(box).put(number, size)
    took_s[number] = Engine.clock - start_s


def receive(box: str) -> None:
    """Take what comes."""
    Mailbox.by_name(box).get()


def main() -> None:
    """Build a platform with links of its own for each scenario, and run them all."""
    scenarios = json.load(sys.stdin)
    model = sys.argv[1]
    flags = [f"--cfg=network/model:{model}", "--cfg=network/crosstraffic:0", "--log=root.thresh:critical"]
    engine = Engine([sys.argv[0], *flags])
    zone = NetZone.create_full_zone("net")
    answers = []
    for s, scenario in enumerate(scenarios):
        took_s = [0.0] * len(scenario["flows"])
        answers.append(took_s)
        times_s, rates = scenario["server"]
        ingress = zone.create_link(f"in-{s}", rates[0]).set_latency(0).seal()
        server = zone.create_host(f"server-{s}", 1e9)
        Actor.create(f"in-{s}", server, change, ingress, times_s, rates)
        hosts = []
        for c, (own_s, own) in enumerate(scenario["up"]):
            link = zone.create_link(f"up-{s}-{c}", own[0]).set_latency(scenario["rtt_s"][c] / 2).seal()
            host = zone.create_host(f"client-{s}-{c}", 1e9)
            route = [LinkInRoute(link), LinkInRoute(ingress)]
            zone.add_route(host.netpoint, server.netpoint, None, None, route, False)
            Actor.create(f"up-{s}-{c}", host, change, link, own_s, own)
            hosts.append(host)
        for number, (client, size, start_s) in enumerate(scenario["flows"]):
            box = f"box-{s}-{number}"
            Actor.create(box, hosts[client], upload, box, size, start_s, number, took_s)
            Actor.create(box + "-in", server, receive, box)
    zone.seal()
    engine.run()
    print(json.dumps(answers))


main()
