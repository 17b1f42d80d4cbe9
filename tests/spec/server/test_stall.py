"""A run in which nothing can come to pass is refused, and says what is missing."""

import pytest

from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError
from fedsim.runs.simulation import simulate


def test_a_cohort_that_is_never_there_at_once_is_told_how_many_there_were():
    """Clients that charge at their own hours: all twenty are never online together."""
    experiment = Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": 20, "availability": "charging"},
            "task": {"kind": "quadratic"},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
            "protocol": {"kind": "synchronous", "cohort": 20},
            "budget": {"commits": 1},
            "runtime": {"executor": "inline"},
        }
    )
    with pytest.raises(
        ExperimentError, match=r"asks for 20 clients at once, and at most \d+ are ever online"
    ):
        simulate(experiment, timeline_only=True)
