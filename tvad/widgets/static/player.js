// The stage of the demo: picture, play controls and the score timeline.
//
// Python paints the picture of `frame` and says in `shown` which one it is.  While playing, the next frame is asked for
// only when the last one is there, by the clock, so that a slow machine skips frames and never lags behind.

const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [4, 2]];
const COLOURS = ["#0b5cad", "#c24e00", "#00785a", "#8a3f80", "#5a5a5a"]; // also told apart by their dashes
const PAD = { left: 34, right: 10, top: 10, bottom: 22 };

function clock(seconds) {
  const whole = Math.max(0, seconds);
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

function element(tag, className, attributes = {}, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

function render({ model, el }) {
  el.classList.add("tv-player");
  const stage = element("div", "tv-stage");
  const image = element("img", "tv-picture", { alt: "the current frame with its heatmap", draggable: "false" });
  const badge = element("div", "tv-badge");
  stage.append(image, badge);
  const controls = element("div", "tv-controls");
  const play = element("button", "tv-play", { type: "button", "aria-label": "play" });
  const back = element("button", "tv-step", { type: "button", "aria-label": "one frame back", title: "One frame back" }, "‹");
  const ahead = element("button", "tv-step", { type: "button", "aria-label": "one frame on", title: "One frame on" }, "›");
  const peak = element("button", "tv-peak", { type: "button", title: "Go to the highest score" }, "Highest score");
  const time = element("span", "tv-time");
  const state = element("span", "tv-state", { role: "status" });
  controls.append(play, back, ahead, time, peak, state);
  const canvas = element("canvas", "tv-timeline", {
    tabindex: "0", role: "slider", "aria-label": "score timeline: click to jump, arrow keys to step", "aria-valuemin": "0",
  });
  const legend = element("div", "tv-legend");
  el.append(stage, controls, canvas, legend);

  let playing = false, began = 0, from = 0, timer = 0, asked = null, url = null, hover = null;
  const frames = () => model.get("track").frames || 0;
  const fps = () => model.get("track").fps || 10;

  function go(frame) {
    const target = Math.max(0, Math.min(frames() - 1, Math.round(frame)));
    if (!frames() || target === model.get("frame")) return;
    asked = target;
    model.set("frame", target);
    model.save_changes();
  }

  function tick() {
    if (!playing) return;
    const late = asked !== null && model.get("shown") !== asked;
    if (!late) {
      const target = from + Math.floor(((performance.now() - began) / 1000) * fps());
      if (target >= frames() - 1) { go(frames() - 1); stop(); return; }
      go(target);
    }
    timer = setTimeout(tick, Math.max(15, 500 / fps()));
  }

  function start() {
    if (!frames()) return;
    if (model.get("frame") >= frames() - 1) go(0);
    playing = true;
    began = performance.now();
    from = model.get("frame");
    tick();
    drawControls();
  }

  function stop() {
    playing = false;
    clearTimeout(timer);
    drawControls();
  }

  function jump(frame) {
    go(frame);
    if (playing) { began = performance.now(); from = model.get("frame"); }
  }

  function drawPicture() {
    const bytes = model.get("picture");
    if (!bytes || !bytes.byteLength) return;
    const next = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    image.onload = () => { if (url && url !== next) URL.revokeObjectURL(url); url = next; };
    image.src = next;
  }

  function drawControls() {
    const on = frames() > 0;
    for (const button of [play, back, ahead, peak]) button.disabled = !on;
    play.classList.toggle("tv-playing", playing);
    play.setAttribute("aria-label", playing ? "pause" : "play");
    play.title = playing ? "Pause" : "Play";
    time.textContent = on ? `${clock(model.get("frame") / fps())} / ${clock((frames() - 1) / fps())}` : "–:––";
    state.textContent = model.get("state");
    badge.textContent = model.get("badge");
    badge.style.display = model.get("badge") ? "" : "none";
    badge.classList.toggle("tv-hot", model.get("hot"));
  }

  const place = (frame, width) => PAD.left + (frames() < 2 ? 0.5 : frame / (frames() - 1)) * (width - PAD.left - PAD.right);
  const level = (value, height) => height - PAD.bottom - value * (height - PAD.top - PAD.bottom);

  function drawTimeline() {
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d"), track = model.get("track");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "11px system-ui, sans-serif";
    const top = level(1, height), floor = level(0, height), left = PAD.left, right = width - PAD.right;
    pen.fillStyle = "#f6f7f9";
    pen.fillRect(left, top, right - left, floor - top);
    const edge = (frame) => frames() < 2 ? left : place(frame - 0.5, width);
    for (const [start, stopped] of track.truth || []) {
      pen.fillStyle = "#dcdfe5";
      const x = Math.max(left, edge(start));
      pen.fillRect(x, top, Math.min(right, edge(stopped)) - x, floor - top);
    }
    for (const [start, stopped] of track.lost || []) hatch(pen, edge(start), Math.min(right, edge(stopped)), top, floor);
    pen.strokeStyle = "#c9ccd3"; pen.lineWidth = 1; pen.setLineDash([]);
    pen.fillStyle = "#5b606b"; pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const value of [0, 0.5, 1]) {
      if (value === 0.5 && !frames()) continue;
      pen.beginPath(); pen.moveTo(left, level(value, height)); pen.lineTo(right, level(value, height)); pen.stroke();
      pen.fillText(value.toFixed(1), left - 6, level(value, height));
    }
    pen.textAlign = "center"; pen.textBaseline = "top";
    if (frames() > 1) {
      const span = (frames() - 1) / fps(), step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120].find((s) => span / s <= 8) || 300;
      for (let second = 0; second <= span; second += step) {
        pen.fillText(step < 1 ? second.toFixed(1) + " s" : second + " s", place(second * fps(), width), floor + 6);
      }
    }
    (track.curves || []).forEach((curve, number) => {
      pen.strokeStyle = COLOURS[number % COLOURS.length];
      pen.setLineDash(DASHES[number % DASHES.length]);
      pen.lineWidth = curve.active ? 2.2 : 1.2;
      pen.beginPath();
      let down = false;
      curve.values.forEach((value, frame) => {
        if (value === null) { down = false; return; }
        const x = place(frame, width), y = level(value, height);
        if (down) pen.lineTo(x, y); else { pen.moveTo(x, y); if (frames() === 1) pen.arc(x, y, 3, 0, 7); }
        down = true;
      });
      pen.stroke();
    });
    pen.setLineDash([3, 3]); pen.strokeStyle = "#30343c"; pen.lineWidth = 1;
    if (frames()) {
      const y = level(track.threshold, height);
      pen.beginPath(); pen.moveTo(left, y); pen.lineTo(right, y); pen.stroke();
      pen.setLineDash([]);
      const x = place(model.get("frame"), width);
      pen.strokeStyle = "#14161a"; pen.lineWidth = 2;
      pen.beginPath(); pen.moveTo(x, top - 4); pen.lineTo(x, floor + 3); pen.stroke();
      pen.fillStyle = "#14161a"; pen.beginPath(); pen.moveTo(x - 5, top - 8); pen.lineTo(x + 5, top - 8);
      pen.lineTo(x, top - 1); pen.fill();
      if (hover !== null) note(pen, hover, width, top, floor);
    } else {
      pen.fillStyle = "#5b606b"; pen.textBaseline = "middle";
      pen.fillText("The scores of a video appear here.", (left + right) / 2, (top + floor) / 2);
    }
    canvas.setAttribute("aria-valuemax", Math.max(0, frames() - 1));
    canvas.setAttribute("aria-valuenow", model.get("frame"));
  }

  function hatch(pen, x1, x2, top, floor) {
    pen.save();
    pen.beginPath(); pen.rect(x1, top, x2 - x1, floor - top); pen.clip();
    pen.strokeStyle = "#9aa0ab"; pen.lineWidth = 1;
    for (let x = x1 - (floor - top); x < x2; x += 7) {
      pen.beginPath(); pen.moveTo(x, floor); pen.lineTo(x + floor - top, top); pen.stroke();
    }
    pen.restore();
  }

  function note(pen, frame, width, top, floor) {
    const active = (model.get("track").curves || []).find((curve) => curve.active);
    const value = active ? active.values[frame] : null;
    const text = `${clock(frame / fps())}  ${value === null || value === undefined ? "not scored yet" : value.toFixed(2)}`;
    const x = place(frame, width);
    pen.strokeStyle = "#8b909b"; pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x, top); pen.lineTo(x, floor); pen.stroke();
    const wide = pen.measureText(text).width + 12, at = Math.min(Math.max(x - wide / 2, 0), width - wide);
    pen.fillStyle = "#22252b"; pen.fillRect(at, top + 3, wide, 18);
    pen.fillStyle = "#fff"; pen.textAlign = "left"; pen.textBaseline = "middle"; pen.fillText(text, at + 6, top + 12);
  }

  function drawLegend() {
    legend.replaceChildren();
    const track = model.get("track");
    (track.curves || []).forEach((curve, number) => {
      const item = element("span", "tv-key" + (curve.active ? " tv-active" : ""));
      const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      line.setAttribute("width", "26"); line.setAttribute("height", "8");
      line.innerHTML = '<line x1="0" y1="4" x2="26" y2="4" stroke-width="2"/>';
      line.firstChild.setAttribute("stroke", COLOURS[number % COLOURS.length]);
      line.firstChild.setAttribute("stroke-dasharray", DASHES[number % DASHES.length].join(" "));
      item.append(line, document.createTextNode(curve.name || "anomaly"));
      legend.append(item);
    });
    if ((track.truth || []).length) legend.append(swatch("tv-truth", "labelled as anomalous"));
    if ((track.lost || []).length) legend.append(swatch("tv-lost", "cannot be read"));
  }

  function swatch(className, text) {
    const item = element("span", "tv-key");
    item.append(element("i", className), document.createTextNode(text));
    return item;
  }

  const frameAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right);
    return Math.max(0, Math.min(frames() - 1, Math.round(share * (frames() - 1))));
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!frames()) return;
    canvas.setPointerCapture(event.pointerId);
    jump(frameAt(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!frames()) return;
    hover = frameAt(event);
    if (event.buttons & 1) jump(hover);
    drawTimeline();
  });
  canvas.addEventListener("pointerleave", () => { hover = null; drawTimeline(); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step) jump(model.get("frame") + step);
    else if (event.key === "Home") jump(0);
    else if (event.key === "End") jump(frames() - 1);
    else if (event.key === " ") (playing ? stop : start)();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  play.addEventListener("click", () => (playing ? stop() : start()));
  back.addEventListener("click", () => { stop(); go(model.get("frame") - 1); });
  ahead.addEventListener("click", () => { stop(); go(model.get("frame") + 1); });
  peak.addEventListener("click", () => { if (model.get("peak") >= 0) jump(model.get("peak")); });

  const all = () => { drawControls(); drawTimeline(); drawLegend(); };
  model.on("change:picture", drawPicture);
  model.on("change:track", () => { if (!frames()) stop(); all(); });
  model.on("change:frame", () => { drawControls(); drawTimeline(); });
  for (const name of ["state", "badge", "hot", "peak"]) model.on(`change:${name}`, drawControls);
  const watcher = new ResizeObserver(drawTimeline);
  watcher.observe(canvas);
  drawPicture();
  all();
  return () => { stop(); watcher.disconnect(); if (url) URL.revokeObjectURL(url); };
}

export default { render };
