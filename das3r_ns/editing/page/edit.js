"use strict";
// The page of `das3r edit`. It shows what the server says and sends what the user does; it decides nothing.

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), timeline = $("timeline");
const CUE_DELAY_MS = 120;
const KEPT_FRAMES = 24;

let scene = null, state = null, frame = 0, tool = "click", moving = true, view = "", playing = false, busy = false;
let stroke = null, pointer = null, hidden = false, lastClick = null, revision = 0, cueTimer = 0;
const images = new Map();

// --- Talking to the server ---------------------------------------------------------------------------------------

async function get(path) {
  const reply = await fetch(path);
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

async function act(action, body) {
  if (busy) return null;
  busy = true;
  const watch = setInterval(showProgress, 300);
  try {
    const reply = await fetch("api/" + action, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}),
    });
    const content = await reply.json();
    if (!reply.ok) { say(content.error, true); return null; }
    state = content.state;
    revision += 1;
    say(content.text);
    listEdits();
    return content;
  } catch (error) {
    say("The server does not answer: is das3r edit still running? (" + error.message + ")", true);
    return null;
  } finally {
    busy = false;
    clearInterval(watch);
    $("progress").hidden = $("cancel").hidden = true;
    await show(frame);
  }
}

async function showProgress() {
  const now = await get("api/progress").catch(() => null);
  if (!now || !busy || !now.total) return;
  $("progress").hidden = $("cancel").hidden = false;
  $("progress").max = now.total;
  $("progress").value = now.done;
  say(`${now.text}: ${now.done} of ${now.total} frames`);
}

function say(text, wrong) {
  $("status").textContent = text;
  $("status").className = wrong ? "error" : "";
}

function image(path) {
  if (!images.has(path)) {
    const made = new Image();
    made.src = path;
    images.set(path, made.decode().then(() => made, () => null));
    while (images.size > 3 * KEPT_FRAMES) images.delete(images.keys().next().value);
  }
  return images.get(path);
}

// --- Drawing -----------------------------------------------------------------------------------------------------

const framePath = (i) => `api/frame/${i}.jpg`;
const maskPath = (i) => `api/mask/${i}.png?r=${revision}`;
let shown = { frame: -1, picture: null, mask: null, cue: null };

async function show(i) {
  frame = Math.max(0, Math.min(scene.frames - 1, i));
  const wanted = frame, started = performance.now();
  const parts = await Promise.all([
    image(framePath(wanted)), image(maskPath(wanted)), view ? image(`api/cue/${wanted}/${view}.png`) : null,
  ]);
  if (wanted !== frame) return;
  shown = { frame: wanted, picture: parts[0], mask: parts[1], cue: parts[2] };
  if (view && !parts[2]) say(`Nothing is known about ${view} in this frame: its camera is not known.`, true);
  draw();
  document.body.dataset.frame = wanted;
  document.body.dataset.shownMs = (performance.now() - started).toFixed(1);
  for (const next of [wanted + 1, wanted - 1]) {
    if (next >= 0 && next < scene.frames) { image(framePath(next)); image(maskPath(next)); }
  }
}

function box() {
  const factor = Math.min(canvas.width / scene.width, canvas.height / scene.height);
  const width = scene.width * factor, height = scene.height * factor;
  return { left: (canvas.width - width) / 2, top: (canvas.height - height) / 2, width, height };
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const g = canvas.getContext("2d"), b = box();
  const picture = view && shown.cue ? shown.cue : shown.picture;
  if (picture) g.drawImage(picture, b.left, b.top, b.width, b.height);
  if (shown.mask && !hidden) {
    g.globalAlpha = $("opacity").value / 100;
    g.drawImage(shown.mask, b.left, b.top, b.width, b.height);
    g.globalAlpha = 1;
  }
  g.strokeStyle = moving ? "#ff9600" : "#3caaff";
  g.lineJoin = g.lineCap = "round";
  if (stroke && stroke.length) {
    g.lineWidth = tool === "brush" ? 2 * radius() * b.width : 2 * ratio;
    g.globalAlpha = tool === "brush" ? 0.5 : 1;
    g.beginPath();
    for (const [x, y] of stroke) g.lineTo(b.left + x * b.width, b.top + y * b.height);
    g.stroke();
    g.globalAlpha = 1;
  } else if (tool === "brush" && pointer) {
    g.lineWidth = ratio;
    g.beginPath();
    g.arc(b.left + pointer[0] * b.width, b.top + pointer[1] * b.height, radius() * b.width, 0, 7);
    g.stroke();
  }
  drawTimeline();
  $("where").textContent = `frame ${frame + 1} of ${scene.frames} (${scene.names[frame]})` +
    (scene.times_s ? `, ${scene.times_s[frame].toFixed(2)} s` : "") +
    `, ${(100 * state.shares[frame]).toFixed(1)} % moves` +
    (scene.trust ? `, camera trusted ${Math.round(100 * scene.trust[frame])} %` : "");
}

function drawTimeline() {
  const ratio = window.devicePixelRatio || 1;
  const width = (timeline.width = timeline.clientWidth * ratio), height = (timeline.height = timeline.clientHeight * ratio);
  const g = timeline.getContext("2d"), n = scene.frames, step = width / n, curve = height * 0.7;
  const most = Math.max(0.05, ...state.shares);
  g.fillStyle = "#e63c3c";
  state.shares.forEach((share, i) => {
    const tall = (share / most) * (curve - 12 * ratio);
    g.fillRect(i * step, curve - tall, Math.max(1, step - (step > 4 ? 1 : 0)), tall);
  });
  g.fillStyle = "#9aa0ad";
  g.font = `${11 * ratio}px system-ui, sans-serif`;
  g.fillText(`share that moves, up to ${(100 * most).toFixed(0)} %`, 4 * ratio, 11 * ratio);
  // Quality record: green is trusted, red is not.
  for (let i = 0; i < n && scene.trust; i++) {
    g.fillStyle = `hsl(${120 * scene.trust[i]} 60% 45%)`;
    g.fillRect(i * step, curve + 2 * ratio, Math.ceil(step), 6 * ratio);
  }
  state.edits.forEach((edit) => {
    g.fillStyle = edit.moving ? "#ff9600" : "#3caaff";
    for (const i of edit.frames) g.fillRect(i * step, curve + 10 * ratio, Math.max(1, step), 4 * ratio);
    g.fillRect(edit.frame * step, curve + 10 * ratio, Math.max(3 * ratio, step), 8 * ratio);
  });
  g.fillStyle = "#fff";
  g.fillRect((frame + 0.5) * step - ratio, 0, 2 * ratio, height);
}

function listEdits() {
  const list = $("edits");
  list.replaceChildren();
  state.edits.forEach((edit) => {
    const row = document.createElement("li"), text = document.createElement("span"), remove = document.createElement("button");
    text.textContent = `${edit.tool} ${edit.moving ? "moving" : "static"}, ` +
      (edit.frames.length > 1 ? `${edit.frames.length} frames from ${edit.frame + 1}` : `frame ${edit.frame + 1}`);
    text.onclick = () => show(edit.frame);
    remove.textContent = "×";
    remove.title = "Remove this edit";
    remove.onclick = () => act("remove", { id: edit.id });
    row.dataset.id = edit.id;
    row.append(text, remove);
    list.append(row);
  });
  $("undo").disabled = !state.can_undo;
  $("redo").disabled = !state.can_redo;
}

// --- Tools -------------------------------------------------------------------------------------------------------

const radius = () => $("radius").value / 1000;

function place(event) {
  const bounds = canvas.getBoundingClientRect(), b = box(), ratio = canvas.width / bounds.width;
  return [((event.clientX - bounds.left) * ratio - b.left) / b.width, ((event.clientY - bounds.top) * ratio - b.top) / b.height];
}

const within = ([x, y]) => x >= 0 && x < 1 && y >= 0 && y < 1;

function choose(chosen) {
  tool = chosen;
  for (const button of document.querySelectorAll("[data-tool]")) button.classList.toggle("on", button.dataset.tool === tool);
  draw();
}

function markAs(value) {
  moving = value;
  for (const button of document.querySelectorAll("[data-moving]")) button.classList.toggle("on", (button.dataset.moving === "1") === moving);
}

async function click(at, level, replaces) {
  const body = { frame, at, moving, whole_clip: $("whole").checked, level, replaces };
  const asked = { ...body };
  const answer = await act("click", body);
  if (answer) lastClick = { ...asked, id: answer.edit };
}

async function otherLevel(step) {
  if (!lastClick || busy) return say("Click a region first; then it can be made smaller or larger.");
  const { at, level, id, frame: where, moving: as, whole_clip: whole } = lastClick;
  const answer = await act("click", { frame: where, at, moving: as, whole_clip: whole, level: level + step, replaces: id });
  if (answer) lastClick = { ...lastClick, level: level + step, id: answer.edit };
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || busy) return;
  const at = place(event);
  if (!within(at)) return;
  canvas.focus();
  if (tool === "click") { click(at, 0); return; }
  canvas.setPointerCapture(event.pointerId);
  stroke = [at];
  draw();
});

canvas.addEventListener("pointermove", (event) => {
  pointer = place(event);
  if (stroke) {
    for (const each of event.getCoalescedEvents ? event.getCoalescedEvents() : [event]) stroke.push(place(each));
    if (!stroke.length) stroke.push(pointer);
  }
  draw();
  clearTimeout(cueTimer);
  if (!stroke && !busy && within(pointer)) cueTimer = setTimeout(() => showCues(frame, pointer), CUE_DELAY_MS);
});

canvas.addEventListener("pointerup", async () => {
  if (!stroke) return;
  const points = stroke, body = { frame, points, moving, whole_clip: $("whole").checked };
  stroke = null;
  if (tool === "brush") await act("brush", { ...body, radius: radius() });
  else if (points.length > 2) await act("lasso", body);
  else draw();
});

canvas.addEventListener("pointerleave", () => { pointer = null; clearTimeout(cueTimer); draw(); });

async function showCues(where, at) {
  const cues = await get(`api/cues/${where}?x=${at[0]}&y=${at[1]}`).catch(() => null);
  if (!cues || where !== frame) return;
  $("cues").replaceChildren(...Object.entries(cues).map(([name, value]) => {
    const row = document.createElement("tr");
    for (const text of [name, value.toFixed(2)]) row.insertCell().textContent = text;
    return row;
  }));
}

function seek(event) {
  const bounds = timeline.getBoundingClientRect();
  show(Math.floor((event.clientX - bounds.left) / bounds.width * scene.frames));
}

timeline.addEventListener("pointerdown", (event) => { timeline.setPointerCapture(event.pointerId); seek(event); });
timeline.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(event); });

async function play() {
  playing = !playing;
  while (playing) {
    const started = performance.now();
    await show(frame + 1 < scene.frames ? frame + 1 : 0);
    await new Promise((done) => setTimeout(done, Math.max(0, 1000 / scene.fps - (performance.now() - started))));
  }
}

function nextEdited() {
  const frames = [...new Set(state.edits.map((edit) => edit.frame))].sort((a, b) => a - b);
  if (frames.length) show(frames.find((i) => i > frame) ?? frames[0]);
}

function nextCue() {
  const options = ["", ...scene.cues];
  view = $("view").value = options[(options.indexOf(view) + 1) % options.length];
  show(frame);
}

const KEYS = {
  ArrowLeft: (event) => show(frame - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => show(frame + (event.shiftKey ? 10 : 1)),
  Home: () => show(0), End: () => show(scene.frames - 1), " ": play,
  1: () => choose("click"), 2: () => choose("brush"), 3: () => choose("lasso"),
  m: () => markAs(true), s: () => markAs(false), w: () => { $("whole").checked = !$("whole").checked; },
  "[": () => otherLevel(-1), "]": () => otherLevel(1),
  ",": () => { $("radius").value -= 4; draw(); }, ".": () => { $("radius").value = +$("radius").value + 4; draw(); },
  h: () => { hidden = !hidden; draw(); }, c: nextCue, n: nextEdited,
  Escape: () => fetch("api/cancel", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if ($("help").open || event.target.tagName === "SELECT") return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") act(event.shiftKey ? "redo" : "undo");
    else if (key === "y") act("redo");
    else return;
  } else if (KEYS[key]) KEYS[key](event);
  else return;
  event.preventDefault();
});

for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => choose(button.dataset.tool);
for (const button of document.querySelectorAll("[data-moving]")) button.onclick = () => markAs(button.dataset.moving === "1");
$("undo").onclick = () => act("undo");
$("redo").onclick = () => act("redo");
$("smaller").onclick = () => otherLevel(-1);
$("larger").onclick = () => otherLevel(1);
$("cancel").onclick = () => KEYS.Escape();
$("opacity").oninput = draw;
$("view").onchange = () => { view = $("view").value; $("view").blur(); show(frame); };
$("help-button").onclick = () => $("help").showModal();
window.addEventListener("resize", () => scene && draw());

async function start() {
  scene = await get("api/scene");
  state = await get("api/state");
  document.title = `${scene.name} - das3r edit`;
  $("name").textContent = scene.name;
  $("doubts").textContent = scene.doubts.join("; ");
  for (const name of scene.cues) $("view").append(new Option(name, name));
  listEdits();
  markAs(true);
  await show(0);
  choose("click");
  say("Click what was forgotten, or mark as static what was taken for moving. Keys: ?");
  document.body.dataset.ready = "1";
}

start().catch((error) => say("The scene cannot be shown: " + error.message, true));
