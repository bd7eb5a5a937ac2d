import pytest

from ladle.engine import Cosine, OneCycle, Step

TOTAL = 1200


@pytest.mark.parametrize("schedule", [Step(warmup=100), Cosine(warmup=100)])
def test_the_warm_up_is_linear_in_the_step(schedule):
    factors = [schedule.factor(step, TOTAL) for step in range(101)]
    assert factors == pytest.approx([0.001 + 0.00999 * step for step in range(101)])


def test_a_warm_up_of_one_cycle_comes_on_top_of_its_rise():
    assert OneCycle(warmup=100).factor(50, TOTAL) == pytest.approx(0.5005 * OneCycle().factor(50, TOTAL))


@pytest.mark.parametrize("schedule", [Step(milestones=()), Cosine(final=1.0)])
def test_a_short_run_leaves_its_warm_up(schedule):
    assert schedule.factor(4, 10) < 1
    assert [schedule.factor(step, 10) for step in range(5, 10)] == [1] * 5


@pytest.mark.parametrize("schedule", [Step(), Cosine(), OneCycle()])
@pytest.mark.parametrize("total", [1, 2, 7, 1200])
def test_every_factor_lies_in_zero_to_one(schedule, total):
    factors = [schedule.factor(step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_steps_fall_at_the_end_of_epochs_eight_and_eleven_of_twelve():
    schedule = Step(warmup=0)
    assert [schedule.factor(step, TOTAL) for step in (799, 800, 1099)] == pytest.approx([1, 0.1, 0.1])
    assert schedule.factor(1100, TOTAL) == pytest.approx(0.01)


def test_milestones_may_be_given_in_epochs():
    assert Step.at((8, 11), of=12) == Step()
    assert Step.at((16,), of=24, gamma=0.5, warmup=0).factor(800, TOTAL) == 0.5


def test_cosine_falls_from_one_to_its_final_value():
    schedule = Cosine(final=0.1, warmup=0)
    factors = [schedule.factor(step, TOTAL) for step in range(TOTAL + 1)]
    assert factors == sorted(factors, reverse=True)
    assert (factors[0], factors[TOTAL // 2], factors[-1]) == pytest.approx((1, 0.55, 0.1))


def test_one_cycle_peaks_once_where_it_says():
    schedule = OneCycle(rise=0.25, start=0.1, final=0.01)
    factors = [schedule.factor(step, TOTAL) for step in range(TOTAL + 1)]
    assert factors[:301] == sorted(factors[:301])
    assert factors[300:] == sorted(factors[300:], reverse=True)
    assert (factors[0], factors[300], factors[-1]) == pytest.approx((0.1, 1, 0.01))
