"""A small grid, of which the tests of sweeps run points."""

GRID = {
    "name": "grid",
    "population": {"preset": "homogeneous", "clients": 8},
    "task": {"kind": "quadratic"},
    "local": {"optimizer": "sgd"},
    "protocol": {"kind": "synchronous", "cohort": 4},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline"},
    "sweep": {"local.lr": [0.1, 0.2], "seed": [0, 1]},
}
LABELS = ["lr-0.1_seed-0", "lr-0.1_seed-1", "lr-0.2_seed-0", "lr-0.2_seed-1"]
