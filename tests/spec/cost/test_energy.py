"""Joules of a visit and of a battery: worked examples, closed forms, and what a run records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import plan, simulated, ungated

from fedsim.clock.estimate import estimate
from fedsim.config.experiment import BudgetConfig
from fedsim.cost import energy
from fedsim.cost.energy import BatteryState
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

SYNC = {"kind": "synchronous", "cohort": 2}

# formulas ---------------------------------------------------------------------------------------


def test_energy_of_training_is_the_power_above_idling_times_seconds():
    assert energy.training_j(train_w=5.0, idle_w=0.5, seconds=100.0) == 450.0
    assert energy.training_j(train_w=5.0, idle_w=0.0, seconds=100.0) == 500.0


def test_a_slope_over_the_rate_is_a_price_a_byte_whatever_the_rate():
    # LTE uplink, the line through the SIGCOMM 2021 measurements: 2.89 W + 79.5 mW per Mbit/s.
    for mbps in (1.0, 8.0, 20.0):
        seconds = 8.0 / mbps  # 1 MB
        by_slope = (2.89 + 0.0795 * mbps) * seconds
        assert energy.radio_j(2.89, 79.5 * 8e-9, seconds, 10**6) == pytest.approx(by_slope)


def test_the_tail_of_lte_is_12_joules_unless_the_next_transfer_comes_first():
    assert energy.tail_j(1.06, 11.6) == pytest.approx(12.296)
    assert energy.tail_j(1.06, 11.6, gap_s=5.0) == pytest.approx(5.3)
    assert energy.tail_j(1.06, 11.6, gap_s=60.0) == energy.tail_j(1.06, 11.6)


def test_gross_energy_adds_what_the_device_draws_anyway():
    assert energy.gross_j(450.0, 0.5, 130.0) == 515.0


# in a run ---------------------------------------------------------------------------------------


def world(**changes):
    """Two devices on links of 1 MB/s that train for 10 and 20 s at 5 W over 0.5 W, radio at 1 W and 2 uJ a byte."""
    blocks = {"budget": {"commits": 1}, "task": {"kind": "quadratic", "dimension": 250_000}} | changes
    made = plan(SYNC, [10.0, 20.0], rate=1e6, **blocks)
    power = {
        "train_w": 5.0,
        "idle_w": 0.5,
        "down_radio_w": 1.0,
        "up_radio_w": 1.0,
        "tail_w": 0.4,
        "tail_s": 15.0,
    }
    price = {"down_radio_j_per_byte": 2e-6, "up_radio_j_per_byte": 2e-6}
    made.population.profiles[:] = [replace(p, **power, **price) for p in made.population.profiles]
    return made


def visits(made):
    run = simulate(made, timeline_only=True)
    assert verify(run) == []
    return run.visits.sort_values("client").reset_index(drop=True), run


def test_a_visit_is_charged_download_training_and_upload_by_hand():
    found, run = visits(world())
    # 1 MB each way takes 1 s: twice 1 W x 1 s and 2 uJ x 10^6 bytes; training at 4.5 W above idle
    assert found.joules.tolist() == pytest.approx([2 * 3.0 + 45.0, 2 * 3.0 + 90.0])
    assert found.gross_joules.tolist() == pytest.approx([51.0 + 0.5 * 12.0, 96.0 + 0.5 * 22.0])
    assert run.info.totals.gross_joules == pytest.approx(found.gross_joules.sum())


def test_the_tail_is_off_by_default_and_ends_with_the_upload_or_by_itself():
    plain, _ = visits(world())
    tailed, _ = visits(world(energy={"tail": True}))
    # after the download 10 s until the upload of client 0, 15 s for client 1; after the upload 15 s each
    assert (tailed.joules - plain.joules).tolist() == pytest.approx([0.4 * (10 + 15), 0.4 * (15 + 15)])
    assert (tailed.gross_joules - plain.gross_joules).tolist() == pytest.approx([10.0, 12.0])


def test_an_estimate_says_what_the_run_records():
    made = world(energy={"tail": True})
    found, _ = visits(made)
    for row in found.itertuples():
        expected = estimate(made.population.profile(row.client), made.work(row.client), 0.0, tail=True)
        assert row.joules == pytest.approx(expected.joules)
        assert row.gross_joules == pytest.approx(expected.gross_joules)


def test_a_visit_that_is_stopped_in_training_is_charged_what_it_used_until_then():
    made = world(energy={"tail": True})
    protocol = type(made.experiment.protocol)(cohort=2, deadline_s=11.5, min_reports=1)
    made = made.alike(
        made.experiment.model_copy(update={"protocol": protocol, "budget": BudgetConfig(time_s=12.0)})
    )
    found = ungated(made).visits.sort_values("client")
    found = found[found.visit == 0].reset_index(drop=True)
    assert found.outcome.tolist() == ["late", "late"]
    assert found.joules[1] == pytest.approx(3.0 + 4.5 * 10.5 + 0.4 * 15.0, abs=1e-3)
    assert found.gross_joules[1] == pytest.approx(found.joules[1] + 0.5 * 11.5)


def test_the_backbone_is_downloaded_once_and_paid_in_time_bytes_and_joules():
    first_visit = {"network": {"server_up_mbps": 1e12, "server_down_mbps": 1e12, "backbone": "first_visit"}}
    plain = simulate(world(budget={"commits": 2}), timeline_only=True)
    made = world(budget={"commits": 2}, **first_visit)
    run = simulate(made, timeline_only=True)
    assert verify(run) == []
    backbone = 4 * 250_000  # as large as the model that trains: one second
    for client in (0, 1):
        before, after = (r.visits[r.visits.client == client].sort_values("visit") for r in (plain, run))
        assert (after.down_bytes.to_numpy() - before.down_bytes.to_numpy()).tolist() == [backbone, 0]
        seconds = (after.downloaded_s - after.dispatched_s).to_numpy()
        assert seconds.tolist() == pytest.approx([2.0, 1.0], abs=1e-3)
        spent = after.joules.to_numpy() - before.joules.to_numpy()
        assert spent.tolist() == pytest.approx([3.0, 0.0], abs=1e-3)


def test_without_idle_power_gross_is_marginal():
    run = simulated(SYNC, [1.0, 2.0])
    assert run.visits.gross_joules.tolist() == run.visits.joules.tolist()


# batteries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: BatteryState(0.0, 0.5), "capacity_j must be positive and finite"),
        (lambda: BatteryState(1.0, 1.5), "level must be between 0 and 1"),
    ],
)
def test_what_no_battery_can_be_is_refused(call, problem):
    with pytest.raises(ValueError, match=problem):
        call()
