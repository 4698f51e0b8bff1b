"""CartPole under an exported policy, by NumPy and onnxruntime alone.

`python run_cartpole.py POLICY.onnx START.npy OUT.npz` writes the states (steps + 1, 4) and the forces (steps,) of an
episode. The dynamics are in double precision, and the policy in that of its file.
"""

import sys

import numpy as np
import onnxruntime

STEPS, DT, GRAVITY, CART, POLE, HALF_LENGTH = 1000, 0.02, 9.8, 1.0, 0.1, 0.5


def step(state, force):
    """The state one Euler step later, as in Gymnasium's CartPole-v1."""
    _, velocity, angle, rate = state
    total, moment = CART + POLE, POLE * HALF_LENGTH
    sine, cosine = np.sin(angle), np.cos(angle)
    push = (force + moment * rate**2 * sine) / total
    angular = (GRAVITY * sine - cosine * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE * cosine**2 / total))
    return state + DT * np.array([velocity, push - moment * angular * cosine / total, rate, angular])


def main(policy, start, out):
    model = onnxruntime.InferenceSession(policy, providers=["CPUExecutionProvider"])
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}[model.get_inputs()[0].type]
    states, forces = [np.load(start)], []
    for _ in range(STEPS):
        (force,) = model.run(None, {"input_0": states[-1][None].astype(dtype)})[0]
        forces.append(force)
        states.append(step(states[-1], float(force)))
    assert not {"jax", "diffsim"} & set(sys.modules)
    np.savez(out, states=np.array(states), forces=np.array(forces))


main(*sys.argv[1:])
