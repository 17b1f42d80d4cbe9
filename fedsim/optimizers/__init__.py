"""How far the model goes along the move that a rule has made; uses adapters only.

A rule turns contributions into a next model. Its move D = after - before is what FedOpt (Reddi et al.,
arXiv 2003.00295, algorithm 2) calls the pseudo-gradient, with its sign: the model goes *along* D. An
optimiser is a frozen component with `init` and `step`; what it remembers is the server's to keep, as
float64 vectors of the adapter's length. Steps are by coordinate of the factors, so they depend on the
gauge: (B G, G^-1 A) is the same update and gets another step.
"""

from __future__ import annotations

from fedsim.optimizers._base import Adaptive, Moments, ServerOptimizer, move, moved

SEAMS = (ServerOptimizer,)

__all__ = ["Adaptive", "Moments", "ServerOptimizer", "move", "moved"]
