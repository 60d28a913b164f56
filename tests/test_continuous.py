"""The continuous model against SciPy's solvers, SciPy's signal package and closed forms."""

import re

import numpy as np
import pytest
import scipy.integrate
import scipy.signal

from tf_mamba_edu import ContinuousSSM

T = np.linspace(0.0, 3.0, 31)


def some_model(seed=0, N=4, D=0.7):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N, N)) / np.sqrt(N) - 1.5 * np.eye(N)
    return ContinuousSSM(A, rng.normal(size=N), rng.normal(size=N), D)


def scipy_model(model):
    return scipy.signal.StateSpace(model.A, model.B[:, None], model.C[None], model.D)


def close(got, want, tolerance=1e-11):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def solve(model, x, initial_state, times):
    """States at `times` by an ODE solver, for an input x(t) that is a function."""
    result = scipy.integrate.solve_ivp(
        lambda t, h: model.A @ h + model.B * x(t),
        (0.0, times[-1]),
        initial_state,
        method="DOP853",
        t_eval=times,
        rtol=1e-12,
        atol=1e-13,
    )
    return result.y.T


# Responses


def test_free_response_solves_the_differential_equation():
    model, h0 = some_model(1), np.array([1.0, -2.0, 0.5, 3.0])
    close(model.free_response(T, h0), solve(model, lambda t: 0.0, h0, T), 1e-9)


def test_step_response_solves_the_differential_equation():
    model = some_model(2)
    states = solve(model, lambda t: 1.0, np.zeros(4), T)
    close(model.step_response(T), states @ model.C + model.D, 1e-9)


def test_impulse_response_equals_scipy():
    model = some_model(3, D=0.0)
    close(model.impulse_response(T), scipy.signal.impulse(scipy_model(model), T=T)[1])


def test_step_response_equals_scipy():
    model = some_model(4)
    close(model.step_response(T), scipy.signal.step(scipy_model(model), T=T)[1])


def test_frequency_response_equals_scipy():
    model, omega = some_model(5), np.array([0.0, 0.1, 1.0, 7.0, 100.0])
    close(model.frequency_response(omega), scipy.signal.freqresp(scipy_model(model), omega)[1])


def test_frequency_response_is_what_a_long_sine_comes_to():
    model, omega, dt = some_model(6, D=0.0), 2.0, 1e-3
    t = np.arange(0, 40, dt)
    y, _ = model.simulate(np.cos(omega * (t + dt / 2)), dt)
    gain = model.frequency_response([omega])[0]
    late = t > 35
    want = (gain * np.exp(1j * omega * (t + dt))).real
    np.testing.assert_allclose(y[late], want[late], atol=1e-5)


def test_step_response_is_the_integral_of_the_impulse_response():
    model, t = some_model(7, D=0.0), np.linspace(0, 3, 601)
    integral = scipy.integrate.cumulative_simpson(model.impulse_response(t), x=t, initial=0)
    close(integral, model.step_response(t), 1e-8)


def test_nothing_happens_before_time_zero():
    model, t = some_model(8), np.array([-2.0, -1e-9, 0.0])
    assert model.impulse_response(t)[:2].tolist() == [0.0, 0.0]
    assert model.impulse_response(t)[2] == pytest.approx(model.C @ model.B)
    assert model.step_response(t)[:2].tolist() == [0.0, 0.0]
    assert model.step_response(t)[2] == pytest.approx(model.D)


def test_transition_takes_one_time_or_many():
    model = some_model(9)
    many = model.transition([0.0, 0.5, 1.0])
    assert many.shape == (3, 4, 4)
    close(many[0], np.eye(4))
    close(many[1] @ many[1], many[2])
    close(model.transition(0.5), many[1])


# Simulation


def test_simulation_equals_scipy_for_held_inputs():
    model, dt = some_model(10), 0.37
    x = np.random.default_rng(0).normal(size=20)
    y, states = model.simulate(x, dt)
    _, _, scipy_states = scipy.signal.lsim(
        scipy_model(model), np.append(x, 0), dt * np.arange(21), interp=False
    )
    close(states, scipy_states[1:])
    close(y, states @ model.C + model.D * x)


@pytest.mark.parametrize("dt", [1e-3, 0.1, 5.0])
def test_simulation_is_exact_for_held_inputs_whatever_the_interval(dt):
    model, h0 = some_model(11), np.ones(4)
    x = np.random.default_rng(1).normal(size=6)
    y, states = model.simulate(x, dt, h0)
    fine_y, fine_states = model.simulate(np.repeat(x, 10), dt / 10, h0)
    close(fine_states[9::10], states)
    close(fine_y[9::10], y)


def test_simulation_of_a_constant_is_the_step_response():
    model = some_model(12)
    y, _ = model.simulate(np.ones(8), 0.25)
    close(y, model.step_response(0.25 * np.arange(1, 9)))


def test_an_initial_state_adds_its_free_response():
    model, h0, dt = some_model(13), np.array([1.0, 2.0, -1.0, 0.0]), 0.2
    x = np.random.default_rng(2).normal(size=10)
    _, driven = model.simulate(x, dt)
    _, both = model.simulate(x, dt, h0)
    close(both - driven, model.free_response(dt * np.arange(1, 11), h0))


def test_two_simulations_with_a_carried_state_equal_one():
    model, x = some_model(14), np.random.default_rng(3).normal(size=10)
    y, states = model.simulate(x, 0.3)
    later, _ = model.simulate(x[4:], 0.3, states[3])
    close(later, y[4:])


def test_integer_inputs_count_as_numbers():
    model = ContinuousSSM([[-1]], [1], [2], 3)
    y, states = model.simulate([1, 0], 1)
    close(states[:, 0], [1 - np.exp(-1), (1 - np.exp(-1)) * np.exp(-1)])
    close(y, 2 * states[:, 0] + [3, 0])


# Poles and stability


def test_poles_are_the_eigenvalues_slowest_first():
    model = ContinuousSSM(np.diag([-5.0, -0.5, -2.0]), np.ones(3), np.ones(3))
    close(model.poles(), [-0.5, -2.0, -5.0])
    general = some_model(15)
    close(np.sort_complex(general.poles()), np.sort_complex(np.linalg.eigvals(general.A)))
    assert np.all(np.diff(general.poles().real) <= 1e-12)
    assert general.poles().dtype == complex


@pytest.mark.parametrize(
    ("A", "stable"),
    [
        ([[-1e-6]], True),
        ([[0.0]], False),
        ([[1e-6]], False),
        ([[-1.0, 100.0], [0.0, -1.0]], True),
        ([[0.0, 1.0], [-4.0, 0.0]], False),
        ([[-1.0, 0.0], [0.0, 0.1]], False),
    ],
)
def test_a_model_is_stable_when_all_its_poles_lie_left(A, stable):
    N = len(A)
    assert ContinuousSSM(A, np.ones(N), np.ones(N)).is_stable() is stable


# Mass, spring and damper


def test_a_damped_spring_swings_as_its_closed_form():
    mass, damping, stiffness = 1.5, 0.6, 5.0
    model = ContinuousSSM.mass_spring_damper(mass, damping, stiffness)
    decay = damping / (2 * mass)
    frequency = np.sqrt(stiffness / mass - decay**2)
    close(model.poles(), [-decay - 1j * frequency, -decay + 1j * frequency])
    envelope = np.exp(-decay * T)
    close(model.impulse_response(T), envelope * np.sin(frequency * T) / (mass * frequency))
    swing = np.cos(frequency * T) + decay / frequency * np.sin(frequency * T)
    close(model.step_response(T), (1 - envelope * swing) / stiffness)
    close(model.free_response(T, [1.0, 0.0])[:, 0], envelope * swing)


def test_the_spring_has_position_and_velocity_as_its_state():
    model = ContinuousSSM.mass_spring_damper(2.0, 0.5, 3.0)
    close(model.A, [[0, 1], [-1.5, -0.25]])
    close(model.B, [0, 0.5])
    close(model.C, [1, 0])
    assert model.D == 0.0 and model.d_state == 2


def test_a_spring_without_damping_keeps_its_energy():
    mass, stiffness = 2.0, 3.0
    model = ContinuousSSM.mass_spring_damper(mass, 0.0, stiffness)
    position, velocity = model.free_response(10 * T, [0.4, -1.0]).T
    energy = (mass * velocity**2 + stiffness * position**2) / 2
    close(energy, energy[0])
    assert not model.is_stable()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"A": np.ones((2, 3))},
            "`A` must have shape (N, N) and N >= 1. Received: A of shape (2, 3)",
        ),
        (
            {"A": np.ones((0, 0))},
            "`A` must have shape (N, N) and N >= 1. Received: A of shape (0, 0)",
        ),
        ({"A": np.ones(2)}, "`A` must be made of finite real numbers with 2 axes. Received: A="),
        (
            {"B": np.ones(3)},
            "`B` must have shape (N,) with N=2 as in `A`. Received: B of shape (3,)",
        ),
        ({"B": np.ones((2, 1))}, "`B` must be made of finite real numbers with 1 axes"),
        (
            {"C": np.ones(1)},
            "`C` must have shape (N,) with N=2 as in `A`. Received: C of shape (1,)",
        ),
        ({"C": ["a", "b"]}, "`C` must be made of finite real numbers with 1 axes"),
        ({"C": [1.0, np.nan]}, "`C` must be made of finite real numbers with 1 axes"),
        ({"A": np.eye(2) * 1j}, "`A` must be made of finite real numbers with 2 axes"),
        ({"A": [[1.0], [1.0, 2.0]]}, "`A` must be made of finite real numbers with 2 axes"),
        ({"D": [1.0]}, "`D` must be made of finite real numbers with 0 axes. Received: D=[1.0]"),
        ({"D": None}, "`D` must be made of finite real numbers with 0 axes. Received: D=None"),
    ],
)
def test_a_bad_matrix_is_named(arguments, message):
    good = {"A": -np.eye(2), "B": np.ones(2), "C": np.ones(2)}
    with pytest.raises(ValueError, match=re.escape(message)):
        ContinuousSSM(**(good | arguments))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.simulate([1.0], 0.0), "`dt` must be positive. Received: dt=0.0"),
        (lambda m: m.simulate([1.0], -1), "`dt` must be positive. Received: dt=-1"),
        (lambda m: m.simulate([1.0], "1"), "`dt` must be made of finite real numbers with 0 axes"),
        (lambda m: m.simulate([[1.0]], 0.1), "`x` must be made of finite real numbers with 1 axes"),
        (lambda m: m.simulate([1.0], 0.1, [1.0]), "`initial_state` must have shape (4,). Received"),
        (
            lambda m: m.free_response(T, np.ones(3)),
            "`initial_state` must have shape (4,). Received",
        ),
        (
            lambda m: m.free_response(0.5, np.ones(4)),
            "`t` must be made of finite real numbers with 1",
        ),
        (
            lambda m: m.transition("now"),
            "`t` must be made of finite real numbers. Received: t='now'",
        ),
        (
            lambda m: m.step_response([np.inf]),
            "`t` must be made of finite real numbers with 1 axes",
        ),
        (lambda m: m.impulse_response(1.0), "`t` must be made of finite real numbers with 1 axes"),
        (lambda m: m.frequency_response(1.0), "`omega` must be made of finite real numbers with 1"),
    ],
)
def test_a_bad_argument_of_a_method_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(some_model())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mass": 0.0}, "`mass` must be positive. Received: mass=0.0"),
        ({"damping": -0.1}, "`damping` must be zero or positive. Received: damping=-0.1"),
        ({"stiffness": -2}, "`stiffness` must be positive. Received: stiffness=-2"),
        (
            {"mass": "2 kg"},
            "`mass` must be made of finite real numbers with 0 axes. Received: mass=",
        ),
        (
            {"damping": [1.0]},
            "`damping` must be made of finite real numbers with 0 axes. Received:",
        ),
    ],
)
def test_a_spring_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ContinuousSSM.mass_spring_damper(**arguments)
