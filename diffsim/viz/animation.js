// Draws every figure of class "animation" on its canvas, from the JSON beside it.
"use strict";

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

function setUp(figure) {
  const scene = JSON.parse(figure.querySelector("script").textContent);
  const canvas = figure.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const [button, slider, readout, speed] = ["button", "input", "output", "select"].map((tag) => figure.querySelector(tag));
  const times = scene.times, last = times.length - 1;
  const edge = { left: 56, right: 12, top: 12, bottom: 44 };
  let frame = 0, playing = false, clock = times[0], previous = 0, view;

  function layOut() {
    const [left, right, bottom, top] = scene.extent;
    const width = canvas.clientWidth, inner = width - edge.left - edge.right;
    const wanted = inner * (top - bottom) / (right - left);
    const height = Math.max(140, Math.min(wanted, 0.65 * window.innerHeight));
    // One scale for both axes; the spare room widens what is seen.
    const scale = Math.min(inner / (right - left), height / (top - bottom));
    const x0 = (left + right - inner / scale) / 2, y0 = (bottom + top - height / scale) / 2;
    view = { width, inner, height, scale, x0, y0, x1: x0 + inner / scale, y1: y0 + height / scale };
    const pixels = window.devicePixelRatio || 1;
    canvas.style.height = `${height + edge.top + edge.bottom}px`;
    canvas.width = Math.round(width * pixels);
    canvas.height = Math.round((height + edge.top + edge.bottom) * pixels);
    pen.setTransform(pixels, 0, 0, pixels, 0, 0);
    draw();
  }

  const toX = (x) => edge.left + (x - view.x0) * view.scale;
  const toY = (y) => edge.top + view.height - (y - view.y0) * view.scale;

  function axes(ink, font) {
    const foot = edge.top + view.height;
    pen.fillStyle = pen.strokeStyle = ink;
    pen.font = font;
    const step = niceStep(70 / view.scale), digits = Math.max(0, -Math.floor(Math.log10(step)));
    const tick = (value, place) => {
      pen.globalAlpha = 0.12;
      pen.beginPath(); place.line(value); pen.stroke();
      pen.globalAlpha = 0.75;
      place.text((value + 0).toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "\u2212"), value);
    };
    pen.lineWidth = 1;
    pen.textAlign = "center"; pen.textBaseline = "top";
    for (let k = Math.ceil(view.x0 / step); k * step <= view.x1; k++) tick(k * step, {
      line: (x) => { pen.moveTo(toX(x), edge.top); pen.lineTo(toX(x), foot); },
      text: (text, x) => pen.fillText(text, toX(x), foot + 6),
    });
    pen.fillText(scene.labels[0], edge.left + view.inner / 2, foot + 24);
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (let k = Math.ceil(view.y0 / step); k * step <= view.y1; k++) tick(k * step, {
      line: (y) => { pen.moveTo(edge.left, toY(y)); pen.lineTo(edge.left + view.inner, toY(y)); },
      text: (text, y) => pen.fillText(text, edge.left - 6, toY(y)),
    });
    pen.save();
    pen.translate(10, edge.top + view.height / 2); pen.rotate(-Math.PI / 2);
    pen.textAlign = "center"; pen.fillText(scene.labels[1], 0, 0);
    pen.restore();
  }

  function line(flat, end, colour, width, alpha) {
    pen.globalAlpha = alpha; pen.strokeStyle = colour; pen.lineWidth = width;
    pen.lineJoin = pen.lineCap = "round";
    pen.beginPath();
    for (let i = 0, down = false; i < end; i += 2) {
      const known = flat[i] !== null && flat[i + 1] !== null;
      if (known) pen[down ? "lineTo" : "moveTo"](toX(flat[i]), toY(flat[i + 1]));
      down = known;
    }
    pen.stroke();
  }

  function disc(flat, radius, colour) {
    if (flat[0] === null || flat[1] === null) return;
    pen.globalAlpha = 1; pen.fillStyle = colour;
    pen.beginPath(); pen.arc(toX(flat[0]), toY(flat[1]), radius * view.scale, 0, 2 * Math.PI); pen.fill();
  }

  function draw() {
    const style = getComputedStyle(canvas);
    pen.clearRect(0, 0, view.width, view.height + edge.top + edge.bottom);
    axes(style.color, `12px ${style.fontFamily}`);
    pen.save();
    pen.beginPath(); pen.rect(edge.left, edge.top, view.inner, view.height); pen.clip();
    for (const trail of scene.trails) {
      line(trail.points, trail.points.length, trail.colour, 1.2, 0.4);
      line(trail.points, 2 * frame + 2, trail.colour, 1.8, 0.9);
    }
    for (const shape of scene.shapes) {
      const flat = shape.frames[Math.min(frame, shape.frames.length - 1)];
      if ("radius" in shape) disc(flat, shape.radius, shape.colour);
      else line(flat, flat.length, shape.colour, shape.width * 4 / 3, 1);
    }
    pen.restore();
    slider.value = frame;
    readout.textContent = `${times[frame].toFixed(2)} s`;
  }

  function show(number) { frame = Math.max(0, Math.min(last, number)); clock = times[frame]; draw(); }

  function play(on) {
    if (on && frame === last) show(0);
    playing = on; previous = 0;
    button.textContent = on ? "Pause" : "Play";
    if (on) requestAnimationFrame(advance);
  }

  function advance(now) {
    if (!playing) return;
    if (previous) clock += Number(speed.value) * (now - previous) / 1000;
    previous = now;
    while (frame < last && times[frame + 1] <= clock) frame++;
    draw();
    if (frame === last) play(false); else requestAnimationFrame(advance);
  }

  slider.max = last;
  slider.addEventListener("input", () => { play(false); show(Number(slider.value)); });
  button.addEventListener("click", () => play(!playing));
  figure.addEventListener("keydown", (event) => {
    if (event.target === speed) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { play(false); show(frame + step); event.preventDefault(); }
    if (event.key === " " && event.target !== button) { play(!playing); event.preventDefault(); }
  });
  new ResizeObserver(layOut).observe(canvas.parentElement);
  for (const query of ["print", "(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", layOut);
  layOut();
}

document.querySelectorAll(".animation").forEach(setUp);
