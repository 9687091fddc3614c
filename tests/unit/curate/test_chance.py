import math

import pytest
from scipy import stats

from limner.curate.chance import above, chi_square


@pytest.mark.parametrize("freedom", range(1, 26))
@pytest.mark.parametrize("statistic", [0.0, 0.3, 2.0, 9.5, 40.0, 200.0])
def test_the_tail_is_that_of_scipy(statistic, freedom):
    # sums of at most 13 positive terms in double precision
    assert above(statistic, freedom) == pytest.approx(
        stats.chi2.sf(statistic, freedom), rel=1e-10, abs=1e-300
    )


def test_the_test_is_that_of_scipy():
    counts, expected = {"A": 30, "B": 10, "C": 20}, {"A": 20.0, "B": 20.0, "C": 20.0}
    test, theirs = chi_square(counts, expected), stats.chisquare([30, 10, 20])
    assert (test.statistic, test.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert test.freedom == 2


def test_too_few_to_test():
    assert math.isnan(chi_square({"A": 3}, {"A": 2.0, "B": 2.0}).p)
    assert math.isnan(chi_square({}, {}).p)
