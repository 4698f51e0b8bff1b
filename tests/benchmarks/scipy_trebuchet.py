"""The default trebuchet written for SciPy, as one would without diffsim, for comparison."""

import numpy as np
from scipy.integrate import solve_ivp

L1, L2, L3, L4, H = 0.5334, 2.0702016, 2.0826984, 0.6096, 1.524
M2, MA, IA, LA, G = 0.14877829736, 4.8307587405, 2.7288719786342397, 0.7684008, 9.80665
K = 1.0 * 1.0 * np.pi * 0.0758952**2 / (8 * M2)
OPTIONS = {"method": "RK45", "rtol": 1e-8, "atol": 1e-10}


def _coefficients(m1, th, ph, ps, w, wh, ws):
    K1, K2 = m1 * L1 * L4, M2 * L2 * L3
    moment = m1 * L1 - M2 * L2 - MA * LA
    inertia = m1 * L1**2 + M2 * L2**2 + MA * LA**2 + IA, m1 * L4**2, M2 * L3**2
    couplings = K1 * np.cos(th - ph), -K2 * np.cos(th - ps)
    forces = (
        -K1 * wh**2 * np.sin(th - ph) + K2 * ws**2 * np.sin(th - ps) - moment * G * np.cos(th),
        K1 * w**2 * np.sin(th - ph) - m1 * L4 * G * np.cos(ph),
        -K2 * w**2 * np.sin(th - ps) - M2 * L3 * G * np.cos(ps),
    )
    return inertia, couplings, forces


def _slide(m1, y):
    th, ph, w, wh = y
    ps = np.arcsin((L2 * np.sin(th) - H) / L3)
    ratio = L2 * np.cos(th) / (L3 * np.cos(ps))
    ws = ratio * w
    shift = (-L2 * np.sin(th) * w**2 + L3 * np.sin(ps) * ws**2) / (L3 * np.cos(ps))
    (I0, I1, I2), (a1, a2), (b0, b1, b2) = _coefficients(m1, th, ph, ps, w, wh, ws)
    matrix = np.array([[I0 + 2 * a2 * ratio + ratio**2 * I2, a1], [a1, I1]])
    arm, hanger = np.linalg.solve(matrix, [b0 + ratio * b2 - (a2 + ratio * I2) * shift, b1])
    push = -(b2 - a2 * arm - I2 * (ratio * arm + shift)) / (L3 * np.cos(ps))
    return np.array([w, wh, arm, hanger]), push, (th, ph, ps, w, wh, ws)


def _swing(m1, y):
    (I0, I1, I2), (a1, a2), forces = _coefficients(m1, *y)
    matrix = np.array([[I0, a1, a2], [a1, I1, 0.0], [a2, 0.0, I2]])
    return np.concatenate([y[3:], np.linalg.solve(matrix, forces)])


def _ball(y):
    th, _, ps, w, _, ws = y
    return np.array(
        [
            -L2 * np.cos(th) + L3 * np.cos(ps),
            H - L2 * np.sin(th) + L3 * np.sin(ps),
            L2 * np.sin(th) * w - L3 * np.sin(ps) * ws,
            -L2 * np.cos(th) * w + L3 * np.cos(ps) * ws,
        ]
    )


def _until(field, y0, event, direction):
    event.terminal, event.direction = True, direction
    return solve_ivp(field, (0.0, 100.0), y0, events=event, **OPTIONS).y_events[0][0]


def throw_range(angle, m1, wind):
    """Range, m, for a release angle (rad), a counterweight (kg) and a wind (m/s)."""
    start = np.array([np.arcsin(H / L2), -np.pi / 2, 0.0, 0.0])
    slid = _until(lambda t, y: _slide(m1, y)[0], start, lambda t, y: _slide(m1, y)[1], -1)

    def across(t, y):
        _, _, vx, vy = _ball(y)
        return vx * np.sin(angle) - vy * np.cos(angle)

    swung = _until(lambda t, y: _swing(m1, y), np.array(_slide(m1, slid)[2]), across, 1)

    def flight(t, y):
        ux, vy = y[2] - wind, y[3]
        speed = np.hypot(ux, vy)
        return np.array([y[2], vy, -K * speed * ux, -G - K * speed * vy])

    return _until(flight, _ball(swung), lambda t, y: y[1], -1)[0]


def value_and_differences(x, step=1e-4):
    """Range and its central differences in the three controls: seven throws."""
    x = np.asarray(x, float)
    shifts = step * np.eye(3) * np.maximum(np.abs(x), 1.0)
    slopes = [(throw_range(*(x + d)) - throw_range(*(x - d))) / (2 * d.sum()) for d in shifts]
    return throw_range(*x), np.array(slopes)
