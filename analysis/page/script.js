"use strict";
// One clock drives every canvas, so all lanes show the same frame, and one view, so all show the same part of it.
// Only the chosen clip's pictures are decoded. The state is that of the controls; the hash of the address keeps it.
(() => {
  const marker = document.documentElement.dataset; // what a test reads: reel = none, loading, ready or failed
  const root = document.getElementById("reel");
  if (!root) { marker.reel = "none"; return; }
  root.hidden = false;
  const find = (id) => document.getElementById(`reel-${id}`);
  const { fps, lanes, clips, score } = JSON.parse(find("index").textContent);
  const names = lanes.map((lane) => [lane.name, lane.seed].filter(Boolean).join(", "));
  const choices = [...new Set(lanes.filter((lane) => lane.kind === "choice").map((lane) => lane.name))]; // rows
  const places = [...root.querySelectorAll("[data-lane]")]; // one film and one slice each
  const rows = [...root.querySelectorAll("button[data-row]")];
  const [chosen, wiper] = [find("chosen"), find("wiper")];
  const kept = ["order", "clip", "rank", "speed", "line", "zoom", "across", "down", "left", "right", "wipe"].filter(find);
  let strips = [], pictures = [], frames = 1, frame = 0, started = null, wanted = 0, saving = 0;

  const rate = () => fps * Number(find("speed").value);
  const number = (id) => Number(find(id).value);
  const visible = () => places.filter((place) => !place.hidden);
  const current = () => clips[find("clip").selectedOptions[0].dataset.at];
  const get = (id) => (id === "rank" ? choices[number(id)] : find(id).value);
  const put = (id, value) => { find(id).value = id === "rank" ? choices.indexOf(value) : value; };
  const defaults = Object.fromEntries(kept.map((id) => [id, get(id)]));

  function view() { // what part of a picture is shown, in fractions of it
    const size = 1 / number("zoom");
    return { size, left: number("across") * (1 - size), top: number("down") * (1 - size) };
  }

  const lineOf = (strip) => Math.min(strip.height - 1, Math.floor(number("line") * strip.height)); // a row of pixels

  // Copies what is in view of a frame to the columns [from, to] of a canvas: all of it, or its row of the slice to line `at`.
  function copy(context, lane, at, [from, to], slice) {
    const strip = strips[lane], { size, left, top } = view(), { width, height } = context.canvas;
    if (to <= from) return;
    const x = (at % strip.columns) * strip.cell[0] + (left + from * size) * strip.width;
    const y = Math.floor(at / strip.columns) * strip.cell[1] + (slice ? lineOf(strip) : top * strip.height);
    const source = [x, y, (to - from) * size * strip.width, slice ? 1 : size * strip.height];
    context.drawImage(pictures[lane], ...source, from * width, slice ? at : 0, (to - from) * width, slice ? 1 : height);
  }

  // `parts`: the lanes that share the canvas, each with its columns.
  function paint(canvas, parts, slice) {
    const { width, height } = strips[parts[0][0]] || strips.find(Boolean);
    const size = { width, height: slice ? frames : height };
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, size.width, size.height);
    context.imageSmoothingEnabled = false; // it would blend in the edge of the next frame in the strip
    for (const [lane, ...columns] of parts.filter(([lane]) => strips[lane])) {
      const count = strips[lane].frames;
      if (!slice) copy(context, lane, Math.min(frame, count - 1), columns, false);
      else for (let at = 0; at < count; at += 1) copy(context, lane, at, columns, true);
    }
  }

  function paintAll(slice) {
    const part = slice ? ".slice canvas" : ".film canvas";
    for (const place of visible()) paint(place.querySelector(part), [[Number(place.dataset.lane), 0, 1]], slice);
    if (!wiper) return;
    const [left, right] = ["left", "right"].map((id) => find(id).selectedIndex);
    paint(wiper.querySelector(part), [[left, 0, number("wipe")], [right, number("wipe"), 1]], slice);
  }

  function draw() { // what changes from frame to frame
    paintAll(false);
    find("scrub").value = frame;
    find("frame").textContent = `${frame + 1} of ${frames}`;
    root.style.setProperty("--time", (frame + 0.5) / frames);
    marker.drawn = visible().filter((place) => strips[place.dataset.lane]).length;
  }

  function refresh() { // everything, after any other change
    for (const pane of chosen ? chosen.children : []) pane.hidden = lanes[pane.dataset.lane].name !== get("rank");
    for (const row of rows) row.setAttribute("aria-pressed", String(row.dataset.row === get("rank")));
    if (chosen) find("rank").setAttribute("aria-valuetext", find("name").textContent = get("rank"));
    if (!strips.length) return;
    const strip = strips.find(Boolean), { size, top } = view();
    root.classList.toggle("zoomed-in", size < 1);
    root.style.setProperty("--line", ((lineOf(strip) + 0.5) / strip.height - top) / size);
    if (wiper) root.style.setProperty("--wipe", number("wipe"));
    find("height").textContent = `${lineOf(strip) + 1} of ${strip.height}`;
    find("times").textContent = `${number("zoom")}x`;
    draw();
    paintAll(true);
    describe();
    remember();
  }

  function describe() { // for those who do not see the pictures
    const { caption, apart } = current();
    const differ = apart === null ? "" : `. The ranks differ by ${apart.toPrecision(2)} in ${score}`;
    if (find("caption").textContent !== caption + differ) find("caption").textContent = caption + differ; // read aloud
    const label = (place, name) => {
      const [film, slice] = place.querySelectorAll("canvas");
      const texts = [`${name}: clip ${find("clip").value}, ${caption}`, `${name}: row ${find("height").textContent} over ${frames} frames`];
      [film, slice].forEach((canvas, index) => {
        canvas.removeAttribute("aria-hidden");
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", texts[index]);
      });
    };
    for (const place of root.querySelectorAll("figure[data-lane]:not([hidden])")) {
      const lane = place.dataset.lane;
      label(place, names[lane]);
      place.querySelector(".numbers").textContent = strips[lane] ? current().scores[lane] : "not on disk";
    }
    if (wiper) label(wiper, `left ${find("left").value}, right ${find("right").value}`);
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
    if (on) requestAnimationFrame(tick); else remember();
  }

  function show(at) {
    play(false);
    frame = (at + frames) % frames;
    refresh();
  }

  function choose(name) {
    put("rank", name);
    if (wiper) find("right").selectedIndex = lanes.findIndex((lane) => lane.kind === "choice" && lane.name === name);
    refresh();
  }

  function sort() {
    const [select, order] = [find("clip"), find("order") ? find("order").value : "name"];
    const place = ({ dataset: { at } }) => {
      const apart = clips[at].apart ?? (order === "most" ? -Infinity : Infinity); // not known: last
      return { name: Number(at), most: -apart, least: apart }[order];
    };
    const kept = select.value;
    select.append(...[...select.options].sort((a, b) => place(a) - place(b) || a.dataset.at - b.dataset.at));
    select.value = kept;
  }

  async function load() {
    const mine = ++wanted; // a reader may choose the next clip before this one is decoded
    marker.reel = "loading";
    const found = JSON.parse(find(`clip-${find("clip").selectedOptions[0].dataset.at}`).textContent);
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
    refresh();
    marker.reel = "ready";
  }

  const open = () => load().catch((error) => {
    marker.reel = "failed";
    find("caption").textContent = `This clip cannot be shown: ${error.message}`;
  });

  function turn(to) {
    const select = find("clip");
    select.selectedIndex = (to + clips.length) % clips.length;
    open();
  }

  function remember() { // browsers limit how often the address may change
    clearTimeout(saving);
    saving = setTimeout(save, 200);
  }

  function save() {
    const state = new URLSearchParams(kept.filter((id) => get(id) !== defaults[id]).map((id) => [id, get(id)]));
    if (frame) state.set("frame", frame);
    find("link").href = `#${state}`;
    if (String(state) !== location.hash.slice(1)) history.replaceState(null, "", `#${state}`);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    const lost = kept.filter((id) => {
      put(id, state.get(id) ?? defaults[id]);
      const same = !state.has(id) || get(id) === state.get(id);
      if (!same) put(id, defaults[id]);
      return !same;
    });
    find("lost").textContent = lost.length ? `Not on this page: ${lost.map((id) => `${id} ${state.get(id)}`).join(", ")}.` : "";
    play(false);
    frame = Math.max(0, state.get("frame") | 0);
    sort();
    open();
    if (String(state)) root.scrollIntoView();
  }

  function drag(film, down) { // the handle of the wiper; else the part in view, or the row of the slice where all is
    const box = film.getBoundingClientRect(), { size } = view();
    const from = [number("across"), number("down")];
    const move = (event) => {
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      if (film.parentNode === wiper) put("wipe", x);
      else if (size === 1) put("line", y);
      else {
        const scale = size / (1 - size);
        put("across", from[0] - ((event.clientX - down.clientX) / box.width) * scale);
        put("down", from[1] - ((event.clientY - down.clientY) / box.height) * scale);
      }
      refresh();
    };
    const tap = down.pointerType === "touch" && size === 1 && film.parentNode !== wiper; // a finger there scrolls the page
    const end = () => { film.onpointermove = film.onpointerup = film.onpointercancel = null; };
    film.onpointermove = tap ? null : move;
    film.onpointerup = (event) => { move(event); end(); };
    film.onpointercancel = end;
    if (down.pointerType !== "touch") move(down);
    film.setPointerCapture(down.pointerId);
  }

  function zoom(by) {
    put("zoom", number("zoom") + by);
    refresh();
  }

  find("play").addEventListener("click", () => play(started === null));
  find("speed").addEventListener("change", () => play(started !== null));
  find("scrub").addEventListener("input", (event) => show(Number(event.target.value)));
  find("clip").addEventListener("change", open);
  find("before").addEventListener("click", () => turn(find("clip").selectedIndex - 1));
  find("after").addEventListener("click", () => turn(find("clip").selectedIndex + 1));
  if (find("order")) find("order").addEventListener("change", () => { sort(); turn(0); });
  if (chosen) find("rank").addEventListener("input", () => choose(get("rank")));
  for (const row of rows) row.addEventListener("click", () => choose(row.dataset.row));
  for (const id of ["line", "zoom", "across", "down", "wipe", "left", "right"].filter(find)) find(id).addEventListener("input", refresh);
  for (const film of root.querySelectorAll("figure .film")) film.addEventListener("pointerdown", (event) => drag(film, event));
  addEventListener("hashchange", restore);
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = find("clip").selectedIndex;
    const keys = { ",": () => show(frame - 1), ".": () => show(frame + 1), n: () => turn(at + 1), p: () => turn(at - 1), "+": () => zoom(1), "=": () => zoom(1), "-": () => zoom(-1) };
    if (!event.target.matches("button, select")) keys[" "] = () => play(started === null);
    if (event.target.matches("select") || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  restore();
})();
