"use strict";
// A figure's data follow its place; nothing else on this page is a program.
const DARK = new Map(Object.entries({/* colours */}));
const NARROW = 600, PAPER = 680, GAP = 62, LINE = 30;
const dark = matchMedia("(prefers-color-scheme: dark)");
const places = new Map();
let printing = false;

// A part of a figure in the colours of a dark page.
const darkened = (part, key) => {
  if (typeof part === "string") return /color/i.test(key) ? DARK.get(part) ?? part : part;
  if (Array.isArray(part)) return typeof part[0] === "number" ? part : part.map((item) => darkened(item, key));
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, darkened(value, name)]));
};

// Panels one below the other: a narrow page has no room for them side by side.
const stacked = (layout) => {
  const order = (name) => Number(name.slice(5) || 1);
  const axes = Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name)).sort((a, b) => order(a) - order(b));
  if (axes.length < 2) return;
  const upright = (name) => layout["yaxis" + layout[name].anchor.slice(1)];
  const rows = new Set(axes.map((name) => upright(name).domain.join())).size;
  const edges = layout.margin.t + layout.margin.b;
  const panel = (layout.height - edges) / rows - GAP * (rows - 1) / rows;
  const whole = axes.length * panel + (axes.length - 1) * GAP;
  axes.forEach((name, i) => {
    const across = layout[name], up = upright(name);
    const top = 1 - i * (panel + GAP) / whole;
    across.domain = [0, 1];
    up.domain = [Math.max(0, top - panel / whole), top];
    up.showticklabels = true;
    up.title ??= up.matches ? layout["yaxis" + up.matches.slice(1)].title : undefined;
  });
  layout.height = whole + edges;
};

const draw = (place) => {
  const { node, figures, at, box } = place;
  const view = box.clientWidth;
  let { data, layout } = figures[at];
  layout = structuredClone(layout);
  place.narrow = !printing && view < NARROW;
  if (place.narrow) stacked(layout);
  if (printing) Object.assign(layout, { autosize: false, width: PAPER });
  if (dark.matches && !printing) [data, layout] = [darkened(data, ""), darkened(layout, "")];
  box.style.height = layout.height + "px";
  Plotly.react(node, data, layout, figures[0].config);
  const legend = node.querySelector(".legend .bg");
  const more = legend ? legend.getBoundingClientRect().height - LINE : 0;
  if (more > 2) {
    box.style.height = layout.height + more + "px";
    Plotly.relayout(node, { height: layout.height + more });
  }
  place.drawn = true;
};

// The map of a run: which stretch of it, and how close.
const steer = (controls, place) => {
  const slider = controls.querySelector("input"), words = controls.querySelector("output");
  const whole = () => place.figures[place.at].layout.xaxis.range;
  const show = () => {
    words.textContent = place.figures[place.at].name;
    slider.setAttribute("aria-valuetext", words.textContent);
  };
  const turn = (at) => {
    slider.value = place.at = at;
    draw(place);
    show();
  };
  slider.addEventListener("input", () => turn(Number(slider.value)));
  controls.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const [first, last] = whole(), [from, until] = place.node.layout.xaxis.range.map(Number);
    const span = until - from, middle = (from + until) / 2;
    const step = { earlier: -span / 2, later: span / 2 }[button.value] ?? 0;
    if (step > 0 && until >= last && place.at + 1 < place.figures.length) return turn(place.at + 1);
    if (step < 0 && from <= first && place.at > 0) return turn(place.at - 1);
    const width = Math.min(last - first, span * ({ closer: 0.5, wider: 2 }[button.value] ?? 1));
    const begin = Math.min(Math.max(first, middle + step - width / 2), last - width);
    Plotly.relayout(place.node, { "xaxis.range": [begin, begin + width] });
  });
  controls.hidden = false;
  show();
};

for (const block of document.querySelectorAll("script.figure")) {
  const box = block.previousElementSibling, node = box.firstElementChild;
  const first = JSON.parse(block.textContent);
  places.set(node.id, { box, node, figures: [first, ...(first.others ?? [])], at: 0, drawn: false, narrow: false });
}
for (const controls of document.querySelectorAll(".controls")) steer(controls, places.get(controls.dataset.figure));

// What is in sight first, the others one at a time, so that the page can be read at once.
const next = () => {
  const waiting = [...places.values()].filter((place) => !place.drawn);
  if (!waiting.length) return;
  const inSight = (place) => {
    const { top, bottom } = place.box.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };
  draw(waiting.find(inSight) ?? waiting[0]);
  setTimeout(next);
};
setTimeout(next);

const again = (which = () => true) => [...places.values()].filter(which).forEach(draw);
// A table that is wider than the page is moved by the arrow keys.
const reachable = () => document.querySelectorAll(".table").forEach((table) => {
  table.tabIndex = table.scrollWidth > table.clientWidth ? 0 : -1;
});
reachable();
addEventListener("resize", () => {
  reachable();
  if (!printing) again((place) => place.drawn && place.narrow !== place.box.clientWidth < NARROW);
});
dark.addEventListener("change", () => again((place) => place.drawn));
addEventListener("beforeprint", () => { printing = true; again(); });
addEventListener("afterprint", () => { printing = false; again(); });
