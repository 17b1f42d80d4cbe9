"""What a visit used of its device and its links; pure arithmetic, for a visit that has been and one that may be."""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.cost.energy import radio_j, tail_j
from fedsim.devices.population import Profile


@dataclass(frozen=True, slots=True)
class Usage:
    """What a visit had used when it ended.

    Attributes:
        down_bytes, up_bytes: payload that left the sender, each way.
        flops: floating-point operations of its training.
        joules: energy above an idle device [J].
        gross_joules: all that the device drew while it was online [J].
    """

    down_bytes: int
    up_bytes: int
    flops: float
    joules: float
    gross_joules: float


def active_j(
    profile: Profile, *, down_s: float, down_bytes: int, train_j: float, up_s: float, up_bytes: int
) -> float:
    """Return the energy above idle [J] of a download, a training of `train_j` and an upload.

    Args:
        profile: whose radio.
        down_s: how long the download took [s].
        down_bytes: its payload.
        train_j: energy of the training above idle [J].
        up_s: how long the upload took [s].
        up_bytes: its payload.
    """
    return (
        radio_j(profile.down_radio_w, profile.down_radio_j_per_byte, down_s, down_bytes)
        + train_j
        + radio_j(profile.up_radio_w, profile.up_radio_j_per_byte, up_s, up_bytes)
    )


def tails_j(profile: Profile, upload_after_s: float | None, *, downloads: bool = True) -> float:
    """Return what a radio takes that stays up after the transfers of one visit [J]; one without bytes wakes no radio.

    Args:
        profile: whose radio.
        upload_after_s: time from the end of the download to the upload, which ends the first tail if it comes
            before the radio sleeps [s]; None: there is no upload.
        downloads: whether there is a download.
    """
    last_j = tail_j(profile.tail_w, profile.tail_s)
    if upload_after_s is None:
        return last_j if downloads else 0.0
    return (tail_j(profile.tail_w, profile.tail_s, upload_after_s) if downloads else 0.0) + last_j
