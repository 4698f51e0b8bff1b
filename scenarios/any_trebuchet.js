// A trebuchet in the page: networks aim it, a simulator throws it, and sliders change it.
"use strict";

// The output of a network for one input vector: a linear map plus layers with x sigmoid(x) between them.
function evaluate(network, x) {
  const product = (layer, v) => layer.bias.map((b, row) => v.reduce((sum, value, column) => sum + layer.weight[row * v.length + column] * value, b));
  const last = network.layers.length - 1;
  const hidden = network.layers.reduce((v, layer, n) => product(layer, v).map((value) => n < last ? value / (1 + Math.exp(-value)) : value), x);
  return product(network.linear, x)[0] + hidden[0];
}

const balance = (p) => (p.m_arm * p.d_cg + p.m_proj * p.l_long) / p.l_short;
const dragOf = (p) => p.rho * p.Cd * Math.PI * p.diameter ** 2 / (8 * p.m_proj);

// Angle (rad), weight (kg) and the target's excess over the reach for a machine with its heaviest weight.
function aim(data, p, target) {
  const inertia = p.m_arm * p.d_cg ** 2 + p.I_arm;
  const groups = [
    p.l_short / p.l_long, p.l_sling / p.l_long, p.l_weight / p.l_long, p.h_pivot / p.l_long,
    Math.log(inertia / (p.m_proj * p.l_long ** 2)), p.m_arm * p.d_cg * p.l_long / inertia,
    p.I_weight / (p.m_weight * p.l_weight ** 2), dragOf(p) * p.l_long, p.wind / Math.sqrt(p.g * p.l_long),
  ].map((value, n) => (value - data.middle[n]) / data.width[n]);
  const [forAngle, forRange, forMass] = data.networks;
  const scaled = (value, [middle, width]) => [...groups, (value - middle) / width];
  const distance = Math.log(target / p.l_long), heaviest = Math.log(p.m_weight / balance(p));
  const rangeAt = (ratio) => data.range[0] + data.range[1] * evaluate(forRange, scaled(ratio, data.ratio));
  const excess = Math.expm1(distance - rangeAt(heaviest)), nearest = Math.max(rangeAt(data.lightest), data.shortest);
  const known = Math.min(data.ratio[0] + data.ratio[1] * evaluate(forMass, scaled(distance, data.range)), heaviest);
  const ratio = excess > 0 ? heaviest : distance < nearest ? NaN : known;
  const share = 1 / (1 + Math.exp(-evaluate(forAngle, scaled(ratio, data.ratio))));
  return {
    angle: data.angles[0] + (data.angles[1] - data.angles[0]) * share,
    mass: balance(p) * Math.exp(ratio),
    excess, nearest: p.l_long * Math.exp(nearest),
  };
}

// One step of the classical Runge-Kutta method.
function step(slope, y, h) {
  const add = (k, c) => y.map((value, n) => value + c * k[n]);
  const k1 = slope(y), k2 = slope(add(k1, h / 2)), k3 = slope(add(k2, h / 2)), k4 = slope(add(k3, h));
  return y.map((value, n) => value + h / 6 * (k1[n] + 2 * k2[n] + 2 * k3[n] + k4[n]));
}

// Steps until `event` is reached; the last step ends on it, by bisection. Returns the states, or null without an event.
function until(slope, y, h, event, most) {
  const states = [y];
  for (let n = 0; n < most; n++) {
    const next = step(slope, y, h);
    if (!next.every(Number.isFinite)) return null;
    if (n > 0 && event(next) <= 0) {
      let low = 0, high = h;
      for (let k = 0; k < 40; k++) {
        const middle = (low + high) / 2;
        if (event(step(slope, y, middle)) <= 0) high = middle; else low = middle;
      }
      states.push(step(slope, y, high));
      return states;
    }
    states.push(y = next);
  }
  return null;
}

// A throw with a weight (kg) and a release angle (rad): the points of machine and ball, and the range (m).
function simulate(machine, angle, mass) {
  const p = { ...machine, m_weight: mass, I_weight: machine.I_weight * mass / machine.m_weight };
  const { l_short: l1, l_long: l2, l_sling: l3, l_weight: l4, m_weight: m1, m_proj: m2, g } = p;
  const I0 = m1 * l1 ** 2 + m2 * l2 ** 2 + p.m_arm * p.d_cg ** 2 + p.I_arm, I1 = m1 * l4 ** 2 + p.I_weight, I2 = m2 * l3 ** 2;
  const K1 = m1 * l1 * l4, K2 = m2 * l2 * l3, moment = m1 * l1 - m2 * l2 - p.m_arm * p.d_cg;
  const terms = (a, h, s, da, dh, ds) => ({
    a1: K1 * Math.cos(a - h), a2: -K2 * Math.cos(a - s),
    b0: -K1 * dh ** 2 * Math.sin(a - h) + K2 * ds ** 2 * Math.sin(a - s) - moment * g * Math.cos(a),
    b1: K1 * da ** 2 * Math.sin(a - h) - m1 * l4 * g * Math.cos(h), b2: -K2 * da ** 2 * Math.sin(a - s) - m2 * l3 * g * Math.cos(s),
  });
  // While the ball slides, the sling's direction and rate follow from the arm's.
  const sling = (a, da) => {
    const s = Math.asin((l2 * Math.sin(a) - p.h_pivot) / l3);
    const ratio = l2 * Math.cos(a) / (l3 * Math.cos(s));
    return { s, ratio, ds: ratio * da };
  };
  const sliding = ([a, h, da, dh]) => {
    const { s, ratio, ds } = sling(a, da), t = terms(a, h, s, da, dh, ds), foot = l3 * Math.cos(s);
    const shift = (-l2 * Math.sin(a) * da ** 2 + l3 * Math.sin(s) * ds ** 2) / foot;
    const dda = (t.b0 + ratio * t.b2 - (t.a2 + ratio * I2) * shift - t.a1 * t.b1 / I1) / (I0 + 2 * t.a2 * ratio + ratio ** 2 * I2 - t.a1 ** 2 / I1);
    return { slope: [da, dh, dda, (t.b1 - t.a1 * dda) / I1], push: -(t.b2 - t.a2 * dda - I2 * (ratio * dda + shift)) / foot };
  };
  const swing = ([a, h, s, da, dh, ds]) => {
    const t = terms(a, h, s, da, dh, ds);
    const dda = (t.b0 - t.a1 * t.b1 / I1 - t.a2 * t.b2 / I2) / (I0 - t.a1 ** 2 / I1 - t.a2 ** 2 / I2);
    return [da, dh, ds, dda, (t.b1 - t.a1 * dda) / I1, (t.b2 - t.a2 * dda) / I2];
  };
  const ball = ([a, , s, da, , ds]) => [
    -l2 * Math.cos(a) + l3 * Math.cos(s), p.h_pivot - l2 * Math.sin(a) + l3 * Math.sin(s),
    l2 * Math.sin(a) * da - l3 * Math.sin(s) * ds, -l2 * Math.cos(a) * da + l3 * Math.cos(s) * ds,
  ];
  const k = dragOf(p);
  const flight = ([, , vx, vy]) => {
    const drag = k * Math.hypot(vx - p.wind, vy);
    return [vx, vy, -drag * (vx - p.wind), -g - drag * vy];
  };
  const unit = Math.sqrt(l2 / g);
  const slides = until((y) => sliding(y).slope, [Math.asin(p.h_pivot / l2), -Math.PI / 2, 0, 0], unit / 200, (y) => sliding(y).push, 4000);
  if (!slides) return null;
  const [a, h, da, dh] = slides.at(-1), at = sling(a, da);
  const released = (y) => { const [, , vx, vy] = ball(y); return vy * Math.cos(angle) - vx * Math.sin(angle); };
  // The ball first rises more steeply than the release angle, which is then reached from above.
  const risen = { yes: false };
  const release = (y) => { const value = released(y); if (value > 0) risen.yes = true; return risen.yes ? value : 1; };
  const swings = until(swing, [a, h, at.s, da, dh, at.ds], unit / 200, release, 4000);
  if (!swings) return null;
  const flights = until(flight, ball(swings.at(-1)), unit / 20, (y) => y[1], 20000);
  if (!flights) return null;
  const states = [...slides.map(([a, h, da]) => [a, h, sling(a, da).s]), ...swings.slice(1)];
  const frames = states.map(([a, h, s]) => {
    const hinge = [l1 * Math.cos(a), p.h_pivot + l1 * Math.sin(a)], tip = [-l2 * Math.cos(a), p.h_pivot - l2 * Math.sin(a)];
    return {
      hinge, tip, weight: [hinge[0] + l4 * Math.cos(h), hinge[1] + l4 * Math.sin(h)],
      ball: [tip[0] + l3 * Math.cos(s), tip[1] + l3 * Math.sin(s)],
    };
  });
  return { frames, flight: flights.map(([x, y]) => [x, y]), range: flights.at(-1)[0] };
}

// The sliders: name, unit, least, most, value of the default machine, and how a machine and target take it.
const SLIDERS = [
  ["target", "m", 5, 400, 60], ["wind", "m/s", -12, 12, 0], ["long arm", "m", 0.5, 12, 2.07], ["short arm / long arm", "", 0.2, 0.35, 0.26],
  ["sling / long arm", "", 0.8, 1.2, 1], ["hanger / long arm", "", 0.15, 0.35, 0.29], ["pivot's height / long arm", "", 0.65, 0.85, 0.74],
  ["arm / ball, masses", "", 10, 60, 32], ["heaviest weight / balance", "", 3, 12, 6], ["drag", "", 0, 0.06, 0.03],
];

function machineOf(base, [target, wind, long, short, sling, hanger, pivot, arm, heaviest, drag]) {
  const m_proj = base.m_proj * (long / base.l_long) ** 3, m_arm = arm * m_proj, l_short = short * long;
  const p = {
    ...base, l_long: long, l_short, l_sling: sling * long, l_weight: hanger * long, h_pivot: pivot * long, m_proj, m_arm,
    d_cg: (long - l_short) / 2, I_arm: m_arm * (long + l_short) ** 2 / 12, rho: 1, Cd: 1, diameter: Math.sqrt(8 * m_proj * drag / (Math.PI * long)),
  };
  const limit = 2.5 * Math.sqrt(p.g * long);
  return { target, machine: { ...p, wind: Math.max(-limit, Math.min(limit, wind)), m_weight: heaviest * balance(p), I_weight: 0 } };
}

function setUpMachine(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const canvas = figure.querySelector("canvas"), controls = figure.querySelector(".sliders"), readout = figure.querySelector("output");
  const pen = canvas.getContext("2d");
  const inputs = SLIDERS.map(([name, unit, low, high, value]) => {
    const label = document.createElement("label"), text = document.createElement("span"), input = document.createElement("input");
    Object.assign(input, { type: "range", min: low, max: high, step: (high - low) / 500, value });
    input.addEventListener("input", draw);
    label.append(text, input);
    controls.append(label);
    return { input, show: () => { text.textContent = `${name}: ${Number(input.value).toPrecision(3)} ${unit}`; } };
  });

  function draw() {
    inputs.forEach((each) => each.show());
    const { target, machine } = machineOf(data.machine, inputs.map(({ input }) => Number(input.value)));
    const answer = aim(data, machine, target), throwing = simulate(machine, answer.angle, answer.mass);
    const number = (value, digits = 4) => value.toPrecision(digits);
    const said = answer.excess > 0 ? `Out of reach by ${number(100 * answer.excess, 2)}%: the farthest throw. ` : "";
    const result = throwing ? `range ${number(throwing.range)} m, miss ${number(100 * Math.abs(throwing.range / target - 1), 2)}%` : "no throw";
    readout.textContent = target < answer.nearest
      ? `Too near: the networks know targets from ${number(answer.nearest, 3)} m on for this machine.`
      : `${said}Weight ${number(answer.mass)} kg, angle ${number(answer.angle * 180 / Math.PI, 3)}°: ${result}`;
    const pixels = window.devicePixelRatio || 1, width = canvas.clientWidth, height = Math.round(width * 0.45);
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * pixels);
    canvas.height = Math.round(height * pixels);
    pen.setTransform(pixels, 0, 0, pixels, 0, 0);
    if (!throwing) return;
    const style = getComputedStyle(figure), ink = style.color;
    const all = [...throwing.flight, ...throwing.frames.flatMap((f) => [f.tip, f.hinge, f.ball])];
    const left = Math.min(...all.map(([x]) => x)), right = Math.max(target, ...all.map(([x]) => x)), top = Math.max(...all.map(([, y]) => y));
    const scale = Math.min((width - 20) / (right - left), (height - 30) / top), place = ([x, y]) => [10 + (x - left) * scale, height - 15 - y * scale];
    const line = (points, colour, thick) => {
      pen.strokeStyle = colour; pen.lineWidth = thick; pen.lineJoin = pen.lineCap = "round"; pen.beginPath();
      points.forEach((point, n) => pen[n ? "lineTo" : "moveTo"](...place(point)));
      pen.stroke();
    };
    line([[left, 0], [right, 0]], ink, 1);
    line([[0, 0], [0, machine.h_pivot]], ink, 2);
    for (const [frame, alpha] of [[throwing.frames[0], 0.35], [throwing.frames.at(-1), 1]]) {
      pen.globalAlpha = alpha;
      line([frame.hinge, frame.tip], "#0072b2", 3);
      line([frame.hinge, frame.weight], "#0072b2", 2);
      line([frame.tip, frame.ball], "#d55e00", 1);
      pen.fillStyle = "#0072b2";
      pen.beginPath(); pen.arc(...place(frame.weight), 6, 0, 2 * Math.PI); pen.fill();
    }
    line([...throwing.frames.map((f) => f.ball), ...throwing.flight], "#d55e00", 1.5);
    const [x, y] = place([target, 0]);
    pen.strokeStyle = ink; pen.lineWidth = 2; pen.beginPath();
    pen.moveTo(x, y); pen.lineTo(x, y - 18); pen.lineTo(x + 9, y - 14); pen.lineTo(x, y - 10); pen.stroke();
  }

  window.addEventListener("resize", draw);
  draw();
}

if (typeof document === "undefined") module.exports = { aim, simulate };
else document.querySelectorAll("figure.interactive").forEach(setUpMachine);
