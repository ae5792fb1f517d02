"""Noise schedules against literal float64 versions of their equations."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    KarrasVeScheduler,
    PNDMScheduler,
)

from culture_core.enhancer_training.noise import Level, Schedule

SCHEDULERS = {
    "epsilon": DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "v_prediction": DDIMScheduler(prediction_type="v_prediction"),
    "sample": DDIMScheduler(prediction_type="sample"),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}


def level_of(schedule: Schedule, place: int) -> Level:
    return Level(*(values[place : place + 1] for values in schedule.levels))


def alpha_bar(scheduler, t: int) -> float:
    product = 1.0
    for beta in scheduler.betas[: t + 1].double().tolist():
        product *= 1 - beta
    return product


@pytest.mark.parametrize("place", [3, 500, 995])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_noise_target_and_clean_estimate_are_those_of_the_equations(kind, place):
    schedule = Schedule.of(SCHEDULERS[kind])
    assert schedule.kind == kind
    level = level_of(schedule, place)
    clean, noise, predicted = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    if kind == "flow":
        t = (place + 1) / 1000
        sigma = 3 * t / (1 + 2 * t)
        a, b, told = 1 - sigma, sigma, 1000 * sigma
    else:
        bar = alpha_bar(SCHEDULERS[kind], place)
        a, b, told = bar**0.5, (1 - bar) ** 0.5, place
    noisy = a * clean + b * noise
    target = {
        "epsilon": noise,
        "v_prediction": a * noise - b * clean,
        "sample": clean,
        "flow": noise - clean,
    }[kind]
    estimate = {
        "epsilon": (noisy - b * predicted) / a,
        "v_prediction": a * noisy - b * predicted,
        "sample": predicted,
        "flow": noisy - b * predicted,
    }[kind]
    assert float(level.timestep) == pytest.approx(told, rel=1e-6)
    torch.testing.assert_close(schedule.noisy(clean, noise, level), noisy, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.target(clean, noise, level), target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.estimate(noisy, predicted, level), estimate, atol=1e-4, rtol=1e-4)
    # A model that predicts its target sees the clean picture in the noise.
    torch.testing.assert_close(schedule.estimate(noisy, target, level), clean, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noisy_pictures_and_velocities_are_those_of_diffusers(kind):
    scheduler = SCHEDULERS[kind]
    schedule, t = Schedule.of(scheduler), torch.tensor([250])
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    level = level_of(schedule, 250)
    torch.testing.assert_close(schedule.noisy(clean, noise, level), scheduler.add_noise(clean, noise, t))
    if kind == "v_prediction":
        found = schedule.target(clean, noise, level)
        torch.testing.assert_close(found, scheduler.get_velocity(clean, noise, t))


def test_flow_levels_are_those_that_diffusers_has_before_sampling():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    schedule = Schedule.of(scheduler)
    torch.testing.assert_close(schedule.levels.noise, scheduler.sigmas.flip(0))
    torch.testing.assert_close(schedule.levels.timestep, scheduler.timesteps.flip(0))
    scheduler.set_timesteps(4)
    assert len(Schedule.of(scheduler).levels.noise) == 1000


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_the_sampler_does_not_matter(kind):
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    schedule = Schedule.of(kind(**settings))
    assert schedule.kind == "epsilon"
    torch.testing.assert_close(schedule.levels.signal, Schedule.of(SCHEDULERS["epsilon"]).levels.signal)


def test_levels_are_drawn_from_all_of_them_and_follow_the_seed():
    schedule = Schedule.of(SCHEDULERS["flow"])
    torch.manual_seed(3)
    first = schedule.draw(4000)
    torch.manual_seed(3)
    assert torch.equal(schedule.draw(4000).noise, first.noise)
    assert first.timestep.unique().numel() > 900
    torch.testing.assert_close(first.signal + first.noise, torch.ones(4000))


def test_a_model_of_noise_is_not_asked_where_no_picture_is_left():
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True)
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    assert float(Schedule.of(scheduler).levels.signal.min()) > 1e-3


def test_an_unknown_scheduler_is_refused():
    with pytest.raises(ValueError, match="KarrasVeScheduler.*FlowMatch"):
        Schedule.of(KarrasVeScheduler())
