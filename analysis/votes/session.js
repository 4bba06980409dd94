"use strict";
// One session of a rater: practice, items, download. Its state is in localStorage, so that a closed page goes on.
(() => {
  const find = (id) => document.getElementById(id);
  const content = JSON.parse(find("content").textContent);
  const marker = document.documentElement.dataset; // what a test reads
  const place = `cinelora-votes-${content.page}`;
  const sides = content.sides;
  const buttons = [...document.querySelectorAll("[data-choice]")];
  const labels = Object.fromEntries(buttons.map((button) => [button.dataset.choice, button.textContent]));
  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (each) => each.toString(16).padStart(2, "0")).join("");
  let state = JSON.parse(localStorage.getItem(place) || "null");
  let strips = [], pictures = [], frame = 0, frames = 1, started = null, opened = 0, ready = false, centre = [0.5, 0.5], practised = null, clock = 0, order = [];

  const items = () => [...content.training, ...content.lists[state.list]];
  const save = () => localStorage.setItem(place, JSON.stringify(state));
  const rate = () => content.fps * Number(find("speed").value);

  function checksum(text) { // FNV-1a, 32 bits
    let hash = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
    return (hash >>> 0).toString(16).padStart(8, "0");
  }

  function file() {
    const lines = state.answers.map((each) => `${each.item},${each.choice},${each.ms}`);
    const check = checksum([content.page, state.session, state.alias, state.list, ...lines].join("\n"));
    return { page: content.page, session: state.session, alias: state.alias, list: state.list, answers: state.answers, check };
  }

  function draw() {
    const zoom = Number(find("zoom").value);
    sides.forEach((side, index) => {
      const strip = strips[index], canvas = find(side);
      if (canvas.width !== strip.width || canvas.height !== strip.height) Object.assign(canvas, { width: strip.width, height: strip.height });
      const at = Math.min(frame, strip.frames - 1);
      const size = [strip.width / zoom, strip.height / zoom];
      const from = [0, 1].map((axis) => Math.max(0, Math.min(centre[axis] - 0.5 / zoom, 1 - 1 / zoom)));
      const x = (at % strip.columns) * strip.cell[0] + from[0] * strip.width;
      const y = Math.floor(at / strip.columns) * strip.cell[1] + from[1] * strip.height;
      canvas.getContext("2d").drawImage(pictures[index], x, y, ...size, 0, 0, strip.width, strip.height);
    });
    find("frame").textContent = `frame ${frame + 1} of ${frames}`;
  }

  function enable(on) {
    ready = on;
    for (const button of buttons) button.disabled = !on;
    marker.ready = on ? `${state.at}` : "";
  }

  function tick(now, mine) {
    if (started === null || mine !== clock) return;
    const shown = Math.floor(((now - started) / 1000) * rate());
    if (shown >= frames && !ready && practised === null) enable(true);
    if (shown % frames !== frame) { frame = Math.max(0, shown % frames); draw(); }
    setTimeout(() => tick(performance.now(), mine), 15);
  }

  function play(on) {
    started = on ? performance.now() - ((frame + 0.01) / rate()) * 1000 : null;
    find("play").textContent = on ? "Pause" : "Play";
    const mine = ++clock; // ends the clock that ran before
    if (on) tick(performance.now(), mine);
  }

  function step(by) {
    play(false);
    frame = (frame + by + frames) % frames;
    draw();
  }

  function turn(id) {
    const select = find(id);
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("change"));
  }

  async function open() {
    play(false);
    const all = items();
    for (const id of ["start", "trial", "end"]) find(id).hidden = id !== (state.at < all.length ? "trial" : "end");
    marker.at = state.at;
    if (state.at >= all.length) { marker.ended = "yes"; return; }
    find("progress").max = all.length;
    find("progress").value = state.at;
    find("feedback").textContent = state.at < content.training.length ? `Practice: one of the ${["two", "three", "four"][sides.length - 2]} clips is damaged.` : "";
    enable(false);
    practised = null;
    number([]);
    const item = all[state.at];
    strips = sides.map((side) => content.strips[item[side]]);
    pictures = await Promise.all(strips.map(async (strip) => {
      const picture = new Image();
      picture.src = `data:image/webp;base64,${strip.webp}`;
      await picture.decode();
      return picture;
    }));
    [frame, frames, opened] = [0, Math.max(...strips.map((strip) => strip.frames)), performance.now()];
    find("zoom").value = "1";
    draw();
    play(true);
  }

  function number(chosen) { // puts the place before the name of each chosen clip
    order = chosen;
    for (const side of sides) {
      const button = buttons.find((each) => each.dataset.choice === side);
      button.textContent = order.includes(side) ? `${order.indexOf(side) + 1}. ${labels[side]}` : labels[side];
    }
  }

  function choose(choice) { // the best clip, then the best of those left, until one is left or the rest are the same
    if (!ready) return;
    if (order.includes(choice)) { number([]); return; }
    if (choice === "unsure") { answer(choice); return; }
    number([...order, ...(choice === "same" ? [] : [choice])]);
    if (choice === "same" || order.length === sides.length - 1) answer([...order, ...(choice === "same" ? [choice] : [])].join(">"));
  }

  function answer(choice) {
    const item = items()[state.at];
    enable(false);
    if (state.at < content.training.length) {
      const right = !/same|unsure/.test(choice) && !choice.split(">").includes(item.damaged); // it is last
      practised = state.at;
      find("feedback").textContent = right ? "Right." : `The damaged clip was ${labels[item.damaged]}.`;
      state.at += 1;
      save();
      setTimeout(open, right ? 700 : 2500);
      return;
    }
    state.answers.push({ item: item.id, choice, ms: Math.round(performance.now() - opened) });
    state.at += 1;
    save();
    open();
  }

  function begin() {
    state = { session: random(), alias: find("alias").value.trim(), list: Number(find("list").value), at: 0, answers: [] };
    save();
    open();
  }

  function download() {
    const link = document.createElement("a");
    const text = JSON.stringify(file());
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `votes-${state.session}.json`;
    link.click();
    marker.file = text;
  }

  const allowed = () => { find("begin").disabled = !(find("consent").checked && find("alias").value.trim()); };
  find("consent").addEventListener("change", allowed);
  find("alias").addEventListener("input", allowed);
  find("list").selectedIndex = Math.floor(Math.random() * content.lists.length);
  find("begin").addEventListener("click", begin);
  find("download").addEventListener("click", download);
  find("play").addEventListener("click", () => play(started === null));
  find("before").addEventListener("click", () => step(-1));
  find("after").addEventListener("click", () => step(1));
  find("speed").addEventListener("change", () => play(started !== null));
  find("zoom").addEventListener("change", draw);
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));
  for (const side of sides) {
    find(side).addEventListener("click", (event) => {
      const box = event.target.getBoundingClientRect();
      centre = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      if (find("zoom").value === "1") turn("zoom"); else draw();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (find("trial").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const keys = { ...Object.fromEntries([...sides, "same", "unsure"].map((choice, place) => [place + 1, () => choose(choice)])), ",": () => step(-1), ".": () => step(1), s: () => turn("speed"), z: () => turn("zoom"), " ": () => play(started === null) };
    if (!keys[event.key] || (event.key === " " && event.target.matches("button, select"))) return;
    event.preventDefault();
    keys[event.key]();
  });
  if (state) open(); else find("start").hidden = false;
  marker.loaded = state ? "resumed" : "new";
})();
