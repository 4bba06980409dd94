"use strict";
// One clock drives every canvas, so all lanes show the same frame. Only the chosen clip's pictures are decoded.
(() => {
  const marker = document.documentElement.dataset; // what a test reads: reel = none, loading, ready or failed
  const root = document.getElementById("reel");
  if (!root) { marker.reel = "none"; return; }
  root.hidden = false;
  const find = (id) => document.getElementById(`reel-${id}`);
  const { fps, lanes, clips } = JSON.parse(find("index").textContent);
  const choices = [...new Set(lanes.filter((lane) => lane.kind === "choice").map((lane) => lane.name))]; // rows
  const places = [...root.querySelectorAll("[data-lane]")]; // one canvas each
  const rows = [...root.querySelectorAll("button[data-row]")];
  const chosen = find("chosen");
  let strips = [], pictures = [], frames = 1, frame = 0, started = null, wanted = 0;

  const rate = () => fps * Number(find("speed").value);

  function drawLane(figure, lane) {
    const strip = strips[lane];
    const canvas = figure.querySelector("canvas");
    const numbers = figure.querySelector(".numbers"); // not under the small canvases
    if (numbers) numbers.textContent = strip ? clips[find("clip").value].scores[lane] : "not on disk";
    const [width, height] = strip ? [strip.width, strip.height] : fallbackSize();
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    if (!strip) { context.clearRect(0, 0, width, height); return 0; }
    const at = Math.min(frame, strip.frames - 1);
    const x = (at % strip.columns) * strip.cell[0];
    const y = Math.floor(at / strip.columns) * strip.cell[1];
    context.drawImage(pictures[lane], x, y, width, height, 0, 0, width, height);
    return 1;
  }

  function fallbackSize() {
    const known = strips.find(Boolean);
    return [known.width, known.height];
  }

  function draw() {
    let drawn = 0;
    for (const place of places) if (!place.hidden) drawn += drawLane(place, Number(place.dataset.lane));
    find("scrub").value = frame;
    find("frame").textContent = `${frame + 1} of ${frames}`;
    marker.drawn = drawn;
  }

  function tick(now) {
    if (started === null) return;
    const next = Math.floor(((now - started) / 1000) * rate()) % frames;
    if (next !== frame) { frame = Math.max(0, next); draw(); }
    requestAnimationFrame(tick);
  }

  function play(on) {
    started = on ? performance.now() - ((frame + 0.01) / rate()) * 1000 : null;
    find("play").textContent = on ? "Pause" : "Play";
    if (on) requestAnimationFrame(tick);
  }

  function show(at) {
    play(false);
    frame = (at + frames) % frames;
    draw();
  }

  function choose(name) {
    find("rank").value = choices.indexOf(name);
    find("rank").setAttribute("aria-valuetext", name);
    find("name").textContent = name;
    for (const pane of chosen.children) pane.hidden = lanes[pane.dataset.lane].name !== name;
    for (const row of rows) row.setAttribute("aria-pressed", String(row.dataset.row === name));
    if (strips.length) draw();
  }

  async function load(clip) {
    const mine = ++wanted; // a reader may choose the next clip before this one is decoded
    marker.reel = "loading";
    const found = JSON.parse(find(`clip-${clip}`).textContent);
    const decoded = await Promise.all(found.map(async (strip) => {
      if (!strip) return null;
      const picture = new Image();
      picture.src = `data:image/webp;base64,${strip.webp}`;
      await picture.decode();
      return picture;
    }));
    if (mine !== wanted) return;
    [strips, pictures] = [found, decoded];
    frames = Math.max(...strips.filter(Boolean).map((strip) => strip.frames));
    frame = Math.min(frame, frames - 1);
    find("scrub").max = frames - 1;
    find("caption").textContent = clips[clip].caption;
    draw();
    marker.reel = "ready";
  }

  const open = (clip) => load(clip).catch((error) => {
    marker.reel = "failed";
    find("caption").textContent = `This clip cannot be shown: ${error.message}`;
  });

  function turn(by) {
    const select = find("clip");
    select.value = (Number(select.value) + by + clips.length) % clips.length;
    open(select.value);
  }

  find("play").addEventListener("click", () => play(started === null));
  find("speed").addEventListener("change", () => play(started !== null));
  find("scrub").addEventListener("input", (event) => show(Number(event.target.value)));
  find("clip").addEventListener("change", (event) => open(event.target.value));
  find("before").addEventListener("click", () => turn(-1));
  find("after").addEventListener("click", () => turn(1));
  if (chosen) {
    find("rank").addEventListener("input", (event) => choose(choices[Number(event.target.value)]));
    for (const row of rows) row.addEventListener("click", () => choose(row.dataset.row));
    choose(choices[0]);
  }
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = { ",": () => show(frame - 1), ".": () => show(frame + 1), n: () => turn(1), p: () => turn(-1) };
    if (!event.target.matches("button, select")) keys[" "] = () => play(started === null);
    if (event.target.matches("select") || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  open(0);
})();
