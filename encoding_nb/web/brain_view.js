// The click-through map: one canvas with the map, one with the time course of the selected voxel.
// The picture, the voxel under each of its pixels and the numbers of all voxels come once from the kernel;
// hovering, zooming and moving about ask it nothing. Only a newly selected voxel's time course is asked for.

const NONE = -1;
const DRAG_PX = 4; // a pointer that moves less has clicked
const MAX_ZOOM = 24;
const COURSE_HEIGHT = 140;
const MAP_SHARE = 0.5; // of the window's height, so that map and time course fit on one screen
const PATIENCE_MS = 300; // then a message replaces a missing time course

const NUMBER = { type: "number", step: "any", placeholder: "auto" };
const FOCUSABLE = new Set(["canvas", "input", "select", "button"]);

const bytesOf = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
const floats = (view) => new Float32Array(bytesOf(view));

async function inflate(view) {
  const stream = new Blob([bytesOf(view)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int32Array(await new Response(stream).arrayBuffer());
}

function element(parent, tag, cls, attributes = {}) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  // JupyterLab's shortcuts match the element with the focus before they look at its parents for this mark.
  if (FOCUSABLE.has(tag)) node.setAttribute("data-lm-suppress-shortcuts", "true");
  parent.append(node);
  return node;
}

function number(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 100000) ? value.toExponential(1) : String(+value.toPrecision(3));
}

// Round numbers between two ends, about as many as asked for.
function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(+at.toPrecision(12));
  return found;
}

function render({ model, el }) {
  const root = element(el, "div", "enb-brain");
  const tools = element(root, "div", "enb-brain-tools", { role: "toolbar", "aria-label": "Map" });
  const stage = element(root, "div", "enb-brain-stage");
  const map = element(stage, "canvas", "enb-brain-map", { tabindex: "0", role: "application" });
  const tip = element(stage, "div", "enb-brain-tip", { "aria-hidden": "true" });
  const scale = element(root, "div", "enb-brain-scale");
  const status = element(root, "div", "enb-brain-status", { role: "status", "aria-live": "polite" });
  const course = element(root, "canvas", "enb-brain-course", { role: "img" });

  const state = { zoom: 1, x: 0, y: 0 }; // x, y: the picture's pixel at the canvas's upper left corner
  let picture = null; // ImageBitmap
  let lookup = null; // Int32Array, the voxel under each pixel
  let rows = []; // [{name, values}]
  let cursor = null; // [column, row] of the selection on the picture
  let drag = null;
  let pointer = null; // {clientX, clientY} of a pointer that rests on the map
  let patience = 0;
  let generation = 0;

  // --- the numbers of a voxel ---

  const facts = () => model.get("_facts");
  const size = () => model.get("_size"); // [height, width] of the picture

  function voxelAt(column, row) {
    const [height, width] = size();
    if (!lookup || column < 0 || row < 0 || column >= width || row >= height) return NONE;
    return lookup[Math.floor(row) * width + Math.floor(column)];
  }

  function nameOf(voxel) {
    const { names, areas, area_of, unit } = facts();
    if (names && names.length) return names[voxel];
    const area = area_of ? areas[new Uint16Array(bytesOf(area_of))[voxel]] : "";
    return `${unit} ${voxel}` + (area ? ` in ${area}` : "");
  }

  function describe(voxel) {
    const { significant, verdicts } = facts();
    const parts = rows.map(({ name, values }) => `${name} ${number(values[voxel])}`);
    if (significant && significant.byteLength) parts.push(verdicts[new Uint8Array(bytesOf(significant))[voxel]]);
    return `${nameOf(voxel)}: ${parts.join(", ")}`;
  }

  function placeOf(voxel) {
    const { places } = facts();
    if (voxel < 0 || !places) return null;
    const at = new Int32Array(bytesOf(places));
    return at[2 * voxel] < 0 ? null : [at[2 * voxel + 1] + 0.5, at[2 * voxel] + 0.5];
  }

  // --- the map ---

  const perPixel = () => (map.width / (size()[1] || 1)) * state.zoom; // device pixels per pixel of the picture

  function clamp() {
    const [height, width] = size();
    state.zoom = Math.min(MAX_ZOOM, Math.max(1, state.zoom));
    const visible = [map.width / perPixel(), map.height / perPixel()];
    state.x = Math.min(Math.max(0, state.x), Math.max(0, width - visible[0]));
    state.y = Math.min(Math.max(0, state.y), Math.max(0, height - visible[1]));
  }

  function drawMap() {
    const pen = map.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, map.width, map.height);
    if (!picture) return hideTip();
    clamp();
    if (pointer && !drag) showTip(); // another voxel may be under the pointer now
    const grown = perPixel();
    pen.setTransform(grown, 0, 0, grown, -state.x * grown, -state.y * grown);
    pen.imageSmoothingEnabled = grown < 2;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, 0, 0);
    const selected = model.get("selected");
    if (selected < 0 || !cursor) return;
    const [height, width] = size();
    pen.fillStyle = "rgba(0, 229, 255, 0.5)";
    for (let i = 0; lookup && i < lookup.length; i++) {
      if (lookup[i] === selected) pen.fillRect(i % width, Math.floor(i / width), 1, 1);
    }
    const radius = (9 * devicePixelRatio) / grown;
    for (const [colour, thickness] of [["#000", 4], ["#00e5ff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = (thickness * devicePixelRatio) / grown;
      pen.beginPath();
      pen.arc(cursor[0], cursor[1], radius, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  function fit() {
    const [height, width] = size();
    if (!root.clientWidth || !width) return;
    const tallest = Math.max(260, MAP_SHARE * window.innerHeight);
    const room = Math.floor(Math.min(root.clientWidth - 4, (tallest * width) / height));
    stage.style.width = `${room}px`;
    const ratio = devicePixelRatio || 1;
    map.style.height = `${(room * height) / width}px`;
    map.width = Math.round(room * ratio);
    map.height = Math.round((room * ratio * height) / width);
    course.width = Math.round(course.clientWidth * ratio);
    course.height = Math.round(COURSE_HEIGHT * ratio);
    drawMap();
    drawCourse();
  }

  // Where a pointer is on the picture.
  function under(event) {
    const box = map.getBoundingClientRect();
    const ratio = map.width / box.width / perPixel();
    return [state.x + (event.clientX - box.left) * ratio, state.y + (event.clientY - box.top) * ratio];
  }

  function zoomBy(factor, around) {
    const before = state.zoom;
    state.zoom = Math.min(MAX_ZOOM, Math.max(1, before * factor));
    const kept = before / state.zoom;
    state.x = around[0] - (around[0] - state.x) * kept;
    state.y = around[1] - (around[1] - state.y) * kept;
    map.style.touchAction = state.zoom > 1 ? "none" : "pan-y";
    drawMap();
  }

  function middle() {
    return cursor || [state.x + map.width / perPixel() / 2, state.y + map.height / perPixel() / 2];
  }

  function keepInSight() {
    if (!cursor || state.zoom === 1) return;
    const [wide, high] = [map.width / perPixel(), map.height / perPixel()];
    if (cursor[0] < state.x || cursor[0] > state.x + wide) state.x = cursor[0] - wide / 2;
    if (cursor[1] < state.y || cursor[1] > state.y + high) state.y = cursor[1] - high / 2;
  }

  function showWhole() {
    Object.assign(state, { zoom: 1, x: 0, y: 0 });
    map.style.touchAction = "pan-y";
    drawMap();
  }

  // --- the selection ---

  function select(voxel, at) {
    cursor = at;
    if (voxel === model.get("selected")) return drawMap();
    model.set("selected", voxel);
    model.save_changes();
  }

  function selectionChanged() {
    const selected = model.get("selected");
    if (!cursor || voxelAt(...cursor) !== selected) cursor = placeOf(selected);
    keepInSight();
    status.textContent = selected < 0 ? "" : describe(selected);
    drawMap();
    clearTimeout(patience);
    patience = setTimeout(drawCourse, PATIENCE_MS);
  }

  // The first other voxel in a direction, across gaps in the cortex.
  function step(dx, dy) {
    const [height, width] = size();
    const selected = model.get("selected");
    let [column, row] = cursor || [width / 2, height / 2];
    for (;;) {
      column += dx;
      row += dy;
      if (column < 0 || row < 0 || column >= width || row >= height) return;
      const voxel = voxelAt(column, row);
      if (voxel >= 0 && voxel !== selected) return select(voxel, [column, row]);
    }
  }

  const KEYS = {
    ArrowLeft: () => step(-1, 0),
    ArrowRight: () => step(1, 0),
    ArrowUp: () => step(0, -1),
    ArrowDown: () => step(0, 1),
    "+": () => zoomBy(1.5, middle()),
    "=": () => zoomBy(1.5, middle()),
    "-": () => zoomBy(1 / 1.5, middle()),
    0: showWhole,
    Escape: () => select(NONE, null),
  };

  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key.startsWith("Arrow")) hideTip(); // the line below names the selected voxel
    KEYS[event.key]();
  });
  map.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    map.setPointerCapture(event.pointerId);
    drag = { from: under(event), x: event.clientX, y: event.clientY, moved: false };
  });
  map.addEventListener("pointermove", (event) => {
    if (drag) {
      drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > DRAG_PX;
      if (!drag.moved) return;
      const now = under(event);
      state.x += drag.from[0] - now[0];
      state.y += drag.from[1] - now[1];
      hideTip();
      return drawMap();
    }
    pointer = { clientX: event.clientX, clientY: event.clientY };
    showTip();
  });
  map.addEventListener("pointerup", (event) => {
    const clicked = drag && !drag.moved;
    drag = null;
    if (!clicked) return;
    map.focus({ preventScroll: true });
    const at = under(event);
    const voxel = voxelAt(...at);
    if (voxel >= 0) select(voxel, at);
  });
  map.addEventListener("pointercancel", () => (drag = null));
  map.addEventListener("pointerleave", hideTip);
  // The wheel scrolls the page until the map is in use: a click or the Tab key gives it the focus.
  map.addEventListener(
    "wheel",
    (event) => {
      if (document.activeElement !== map && map.getRootNode().activeElement !== map && !event.ctrlKey) return;
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY / 300), under(event));
    },
    { passive: false },
  );

  function hideTip() {
    pointer = null; // until it moves again
    tip.style.display = "none";
  }

  function showTip() {
    const voxel = voxelAt(...under(pointer));
    if (voxel < 0) return void (tip.style.display = "none");
    tip.textContent = describe(voxel);
    tip.style.display = "block";
    const box = stage.getBoundingClientRect();
    const [x, y] = [pointer.clientX - box.left, pointer.clientY - box.top];
    tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > box.height ? y - tip.offsetHeight - 8 : y + 18}px`;
  }

  // --- the time course ---

  function drawCourse() {
    const pen = course.getContext("2d");
    const ratio = devicePixelRatio || 1;
    const [width, height] = [course.width / ratio, course.height / ratio];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(root);
    const ink = style.color;
    const faint = style.getPropertyValue("--enb-faint");
    const orange = style.getPropertyValue("--enb-predicted");
    pen.font = `12px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    const { voxel, heading, times, measured, predicted } = model.get("_course");
    const selected = model.get("selected");
    const current = selected >= 0 && voxel === selected;
    const text = current ? heading : selected < 0 ? model.get("_hint") : `Waiting for the kernel: ${nameOf(selected)}`;
    course.setAttribute("aria-label", text);
    pen.fillStyle = ink;
    pen.textAlign = "left";
    pen.fillText(text, 4, 10, width - 8);
    course.dataset.voxel = current ? voxel : NONE;
    if (!current || !times || !times.byteLength) return;

    const [t, one, other] = [floats(times), floats(measured), floats(predicted)];
    let [low, high] = [Infinity, -Infinity];
    for (const series of [one, other]) {
      for (const value of series) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (!(low < high)) [low, high] = Number.isFinite(low) ? [low - 1, low + 1] : [-1, 1];
    const [left, right, top, bottom] = [46, width - 10, 42, height - 34];
    const [first, last] = [t[0], t[t.length - 1] > t[0] ? t[t.length - 1] : t[0] + 1];
    const X = (time) => left + ((time - first) / (last - first)) * (right - left);
    const Y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);

    pen.strokeStyle = faint;
    pen.lineWidth = 1;
    pen.textAlign = "right";
    for (const value of ticks(low, high, 4)) {
      pen.beginPath();
      pen.moveTo(left, Y(value));
      pen.lineTo(right, Y(value));
      pen.stroke();
      pen.fillText(number(value), left - 5, Y(value));
    }
    pen.textAlign = "center";
    for (const time of ticks(first, last, Math.max(3, width / 120))) {
      pen.fillText(number(time), X(time), bottom + 10);
    }
    pen.fillText("time from the start of the story (s)", (left + right) / 2, height - 7);
    pen.save();
    pen.translate(9, (top + bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("BOLD (z)", 0, 0);
    pen.restore();

    const lines = [
      ["measured", one, ink, 1, []],
      ["predicted", other, orange, 2, [6, 3]],
    ];
    lines.forEach(([name, series, colour, thickness, dashes], i) => {
      pen.strokeStyle = colour;
      pen.lineWidth = thickness;
      pen.setLineDash(dashes);
      pen.beginPath();
      series.forEach((value, k) => (k ? pen.lineTo(X(t[k]), Y(value)) : pen.moveTo(X(t[k]), Y(value))));
      pen.stroke();
      pen.beginPath();
      pen.moveTo(left + 110 * i, 29);
      pen.lineTo(left + 110 * i + 24, 29);
      pen.stroke();
      pen.setLineDash([]);
      pen.textAlign = "left";
      pen.fillText(name, left + 110 * i + 30, 29);
    });
  }

  // --- tools ---

  function button(text, label, action) {
    const made = element(tools, "button", "enb-brain-button", { type: "button", "aria-label": label, title: label });
    made.textContent = text;
    made.addEventListener("click", action);
  }
  button("+", "Zoom in (+, or the wheel over the map once it is in use)", () => zoomBy(1.5, middle()));
  button("\u2212", "Zoom out (-)", () => zoomBy(1 / 1.5, middle()));
  button("whole map", "Show the whole map (0)", showWhole);

  function field(text, cls, title, attributes, tag = "input") {
    const label = element(tools, "label", "", { title });
    label.append(text + " ");
    return element(label, tag, cls, { title, ...attributes });
  }
  const threshold = field("threshold", "enb-brain-threshold", "Hide what lies below this value", { type: "range" });
  const readout = element(threshold.parentNode, "output", "enb-brain-threshold-value");
  const ends = {
    vmin: field("colours from", "enb-brain-vmin", "Value of the darkest colour; empty: taken from the data", NUMBER),
    vmax: field("to", "enb-brain-vmax", "Value of the brightest colour; empty: taken from the data", NUMBER),
  };
  const story = field("story", "enb-brain-story", "The story whose time course is shown below", {}, "select");

  threshold.addEventListener("input", () => {
    const lowest = threshold.value === threshold.min;
    model.set("threshold", lowest ? null : Number(threshold.value));
    model.save_changes();
  });
  for (const [name, box] of Object.entries(ends)) {
    const take = () => {
      model.set(name, box.value === "" ? null : Number(box.value));
      model.save_changes();
    };
    box.addEventListener("change", take);
    // JupyterLab keeps Enter's own change event from happening inside cells.
    box.addEventListener("keydown", (event) => event.key === "Enter" && take());
  }
  story.addEventListener("change", () => {
    model.set("story", story.value);
    model.save_changes();
  });

  function showTools() {
    const { low, high, lowest, highest } = model.get("_scale");
    Object.assign(threshold, { min: lowest ?? 0, max: highest ?? 1, step: ((highest ?? 1) - (lowest ?? 0)) / 100 || 1 });
    const at = model.get("threshold");
    threshold.value = at ?? threshold.min;
    readout.textContent = at === null ? "off" : number(at);
    for (const [name, box] of Object.entries(ends)) {
      if (document.activeElement !== box) box.value = model.get(name) ?? "";
      box.placeholder = number(name === "vmin" ? low : high);
    }
    const names = model.get("_stories");
    story.parentNode.style.display = names.length > 1 ? "" : "none";
    story.replaceChildren(...names.map((name) => new Option(name, name)));
    story.value = model.get("story");
  }

  function showScale() {
    const { low, high, stops, units, note } = model.get("_scale");
    scale.replaceChildren();
    if (stops) {
      element(scale, "span").textContent = number(low);
      element(scale, "span", "enb-brain-bar").style.background = `linear-gradient(to right, ${stops.join(",")})`;
      element(scale, "span").textContent = number(high);
    }
    const parts = stops ? [units, note] : [note]; // bars have their units at their own axis
    element(scale, "span", "enb-brain-units").textContent = parts.filter(Boolean).join("; ");
  }

  // --- what comes from the kernel ---

  async function pictureChanged() {
    const mine = ++generation;
    const bytes = model.get("_picture");
    map.setAttribute("aria-label", model.get("_alt"));
    const made = bytes.byteLength ? await createImageBitmap(new Blob([bytesOf(bytes)], { type: "image/png" })) : null;
    if (mine !== generation) return;
    picture = made;
    drawMap();
    map.dataset.pictures = Number(map.dataset.pictures || 0) + 1;
  }
  async function lookupChanged() {
    const bytes = model.get("_lookup");
    lookup = bytes.byteLength ? await inflate(bytes) : null;
    cursor = null;
    fit();
    selectionChanged();
    map.dataset.ready = String(!!lookup);
  }
  function factsChanged() {
    rows = (facts().rows || []).map(({ name, values }) => ({ name, values: floats(values) }));
    selectionChanged();
  }
  function scaleChanged() {
    showScale();
    showTools();
  }

  const listeners = {
    "change:selected": selectionChanged,
    "change:_picture": pictureChanged,
    "change:_lookup": lookupChanged,
    "change:_facts": factsChanged,
    "change:_scale": scaleChanged,
    "change:_stories": showTools,
    "change:story": showTools,
    "change:threshold": showTools,
    "change:vmin": showTools,
    "change:vmax": showTools,
    "change:_course": drawCourse,
    "change:_hint": selectionChanged,
  };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  const resized = new ResizeObserver(fit);
  resized.observe(root);
  window.addEventListener("resize", fit);
  const theme = new MutationObserver(drawCourse); // JupyterLab's light and dark themes
  theme.observe(document.body, { attributes: true });
  factsChanged();
  scaleChanged();
  lookupChanged();
  pictureChanged();
  drawCourse();

  return () => {
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
    resized.disconnect();
    window.removeEventListener("resize", fit);
    theme.disconnect();
    clearTimeout(patience);
  };
}

export default { render };
