"""What every rule owes the others, by discovery, the rule of docs/extending.md among them; each property has a rule that breaks it."""

import pytest
from worlds.broken_rules import BROKEN
from worlds.contracts import IN_ORDER, OWN_RULE, RULES, rule_of

from fedsim.checks.limits import Choice, refusals
from fedsim.testing import check_aggregator
from fedsim.testing.rules import CHECKS, product_error, subject_of

pytestmark = pytest.mark.usefixtures("extensions")


def subject(kind):
    return subject_of(rule_of(kind), in_order=kind in IN_ORDER)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", RULES)
def test_every_rule_has_every_property(kind, check):
    check(subject(kind))


@pytest.mark.parametrize("kind", [k for k in RULES if k != OWN_RULE])
def test_a_rule_that_does_not_say_that_it_is_exact_is_not(kind):
    rule = subject(kind)

    assert rule.rule.traits.exact or min(product_error(rule)) > 1e-2


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_that_cannot_average_whole_models_is_refused_with_them(kind):
    traits = rule_of(kind).traits

    assert traits.full_model or refusals(Choice(kind, traits, whole=True))


def test_every_property_has_a_rule_that_breaks_it():
    assert {check for _, check, _ in BROKEN} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(("bug", "check", "sentence"), BROKEN)
def test_a_broken_rule_is_told_its_property(bug, check, sentence):
    broken = subject(f"worlds.broken_rules:{bug}")
    checks = {c.__name__: c for c in CHECKS}

    with pytest.raises(AssertionError, match=sentence):
        checks[check](broken)
    with pytest.raises(AssertionError):
        check_aggregator(broken.rule)


def test_a_component_of_another_seam_is_no_aggregator():
    from fedsim.errors import ExperimentError
    from fedsim.samplers.uniform import Uniform

    with pytest.raises(ExperimentError, match="has no method"):
        check_aggregator(Uniform())
