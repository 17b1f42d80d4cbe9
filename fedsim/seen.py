"""What a sampler may know, under its public name: `fedsim.samplers.seen` has the text."""

from fedsim.arrays import Floats
from fedsim.samplers.seen import Counts, Seen

__all__ = ["Counts", "Floats", "Seen"]
