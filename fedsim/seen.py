"""What a sampler may know, under its public name: `fedsim.samplers.seen` has the text."""

from fedsim.samplers.seen import Counts, Floats, Seen

__all__ = ["Counts", "Floats", "Seen"]
