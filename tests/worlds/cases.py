"""How many cases of a property are tried: a part of them by default, all where many are asked for."""

from hypothesis import settings


def tried(cases):
    """A quarter of so many cases, but for `FEDSIM_CASES=many` and `new`."""
    return cases if settings.get_current_profile_name() != "same" else max(1, cases // 4)
