// What the panel needs from the browser: whether the page is open, keys that reach its text boxes, tooltips, a new
// cell, the clipboard, and a file to download. The kernel does everything else.

// JupyterLab's shortcuts look at the element with the focus first: with this mark they leave its keys alone.
const MARK = "data-lm-suppress-shortcuts";
const TYPED_INTO = "input, textarea, select, button, [tabindex], [contenteditable]";

// ipywidgets writes the tooltip of a text box, a list or a tick only where there is no label: write all of them.
function explain(panel, tips) {
  for (const [name, tip] of Object.entries(tips)) {
    panel.querySelectorAll(`.${name}`).forEach((control) => {
      for (const node of [control, ...control.querySelectorAll("[title]")]) if (node.title !== tip) node.title = tip;
      control.querySelectorAll("input, select").forEach((box) => box.setAttribute("aria-description", tip));
    });
  }
}

function shield(panel, tips) {
  const mark = () => {
    panel.querySelectorAll(TYPED_INTO).forEach((box) => box.setAttribute(MARK, "true"));
    explain(panel, tips());
  };
  mark();
  // The progress of a fit changes the panel four times a second: only what can be typed into or has a tip counts.
  const counts = (node) => node.nodeType === 1 && (node.matches(TYPED_INTO) || node.querySelector(TYPED_INTO));
  const watcher = new MutationObserver((changes) => {
    if (changes.some((change) => [...change.addedNodes].some(counts))) mark();
  });
  watcher.observe(panel, { childList: true, subtree: true });
  return watcher;
}

// A hidden line names the section that a folding button belongs to; screen readers hear whether it is open.
function say(panel) {
  const tell = () =>
    panel.querySelectorAll(".enb-section > button.jupyter-widgets").forEach((button) => {
      button.setAttribute("aria-expanded", String(button.classList.contains("mod-active")));
    });
  tell();
  const watcher = new MutationObserver(tell);
  watcher.observe(panel, { attributes: true, attributeFilter: ["class"], subtree: true });
  return watcher;
}

function whenIn(el, action) {
  const panel = el.closest(".enb-panel");
  if (panel) return action(panel);
  requestAnimationFrame(() => el.isConnected !== null && whenIn(el, action));
}

// The notebook that shows the widget, as JupyterLab's widget manager knows it; null in other programs.
function notebookOf(model) {
  const context = model.widget_manager && model.widget_manager.context;
  const shared = context && context.model && context.model.sharedModel;
  return shared && typeof shared.insertCell === "function" && shared.cells ? shared : null;
}

function insertBelow(model, el, code) {
  const shared = notebookOf(model);
  if (!shared) return "This program gives the panel no way to add a cell: use Copy, and paste into a new cell.";
  const cell = el.closest("[data-windowed-list-index]");
  const at = cell ? Number(cell.dataset.windowedListIndex) + 1 : shared.cells.length;
  shared.insertCell(at, { cell_type: "code", source: code, metadata: {} });
  return "Inserted below the panel's cell: run it with Shift and Enter.";
}

async function copy(code) {
  try {
    await navigator.clipboard.writeText(code);
    return "Copied: paste it into a cell.";
  } catch {
    const box = document.createElement("textarea");
    box.value = code;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done ? "Copied: paste it into a cell." : "The browser refused: select the code and copy it yourself.";
  }
}

function button(parent, text, cls, title) {
  const made = document.createElement("button");
  made.className = `jupyter-button lm-Widget ${cls}`;
  made.type = "button";
  made.textContent = text;
  made.title = title;
  parent.append(made);
  return made;
}

function renderCode({ model, el }) {
  const bar = document.createElement("div");
  bar.className = "enb-page-bar";
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  const code = document.createElement("pre");
  code.className = "enb-code";
  code.tabIndex = 0;
  code.setAttribute("aria-label", "Code of the last run");
  const copier = button(bar, "Copy", "enb-copy", "Copy the code");
  const inserter = button(bar, "Insert below", "enb-insert", "Put the code into a new cell below the panel's");
  bar.append(status);
  el.append(bar, code);
  copier.addEventListener("click", async () => (status.textContent = await copy(model.get("code"))));
  inserter.addEventListener("click", () => (status.textContent = insertBelow(model, el, model.get("code"))));
  const show = () => {
    code.textContent = model.get("code");
    copier.disabled = inserter.disabled = !model.get("code");
    status.textContent = "";
  };
  model.on("change:code", show);
  show();
  return () => model.off("change:code", show);
}

function renderDownload({ model, el }) {
  const bar = document.createElement("div");
  bar.className = "enb-page-bar";
  const made = button(bar, "Download all", "enb-download", "Save the last run and download all saved runs as one zip");
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  bar.append(status);
  el.append(bar);
  let waiting = false;
  made.addEventListener("click", () => {
    waiting = true;
    status.textContent = "Packing.";
    model.send({ kind: "zip" });
  });
  const got = (message, buffers) => {
    if (!waiting) return; // another view of the panel asked
    waiting = false;
    status.textContent = message.status;
    if (!buffers || !buffers.length) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(buffers, { type: "application/zip" }));
    link.download = message.name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const enable = () => (made.disabled = !model.get("enabled"));
  model.on("msg:custom", got);
  model.on("change:enabled", enable);
  enable();
  const watchers = [];
  whenIn(el, (panel) => watchers.push(shield(panel, () => model.get("tips")), say(panel)));
  model.set("seen", model.get("seen") + 1);
  model.save_changes();
  return () => {
    model.off("msg:custom", got);
    model.off("change:enabled", enable);
    watchers.forEach((watcher) => watcher.disconnect());
  };
}

export default {
  render: (context) => (context.model.get("part") === "code" ? renderCode(context) : renderDownload(context)),
};
