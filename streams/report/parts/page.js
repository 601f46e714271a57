"use strict";
// Nothing is fetched: plotly.js and the figures stand in this file, compressed, and are unpacked when first needed.
const text = (id) => document.getElementById(id).textContent;

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(text(id)), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

let loading = null;
let figures = null;

function load() {
  loading ??= (async () => {
    const script = document.createElement("script");
    script.textContent = await unpacked("packed-plotly");
    document.head.append(script);
    figures = JSON.parse(await unpacked("packed-figures"));
  })();
  return loading;
}

const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
// A finger scrolls the page, and on a phone there is no room for buttons.
const coarse = matchMedia("(pointer: coarse), (max-width: 40rem)").matches;
const settings = { responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover", modeBarButtons: buttons };

const NARROW_PX = 440;

function draw(plot) {
  if (figures === null || plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  const figure = figures[plot.id];
  const layout = { ...figure.layout };
  if (coarse) layout.dragmode = false;
  if (plot.clientWidth < NARROW_PX) layout.height = layout.meta.narrow;
  Plotly.newPlot(plot, figure.data, layout, settings);
  // To a screen reader the figure is one image with a name; its numbers stand in the table. Keys pass it by.
  for (const part of [...plot.children, document.getElementById("js-plotly-tester")]) part.setAttribute("aria-hidden", "true");
  for (const button of plot.querySelectorAll(".modebar-btn")) button.tabIndex = -1;
}

const visible = (plot) => !plot.closest("details:not([open])");

async function drawVisible() {
  await load();
  for (const plot of document.querySelectorAll(".plot")) if (visible(plot)) draw(plot);
  document.documentElement.dataset.ready = "yes";
}

function filterIncidents() {
  const wanted = document.getElementById("filter-text").value.trim().toLowerCase();
  const detector = document.getElementById("filter-detector").value;
  const level = Number(document.getElementById("filter-level").value);
  let shown = 0;
  const rows = document.querySelectorAll("#listed tbody tr");
  for (const row of rows) {
    const fits = Number(row.dataset.level) >= level
      && (!detector || row.dataset.detectors.split(" ").includes(detector))
      && row.textContent.toLowerCase().includes(wanted);
    row.hidden = !fits;
    shown += fits;
    const details = document.getElementById(`incident-${row.dataset.uid}`);
    if (details) details.hidden = !fits;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} incidents shown.`;
}

function sortBy(header) {
  const rising = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.children) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const place = header.cellIndex;
  const key = (row) => row.cells[place].dataset.order ?? row.cells[place].textContent.trim();
  const body = document.querySelector("#listed tbody");
  const order = new Intl.Collator("en", { numeric: true });
  const rows = [...body.rows].sort((a, b) => order.compare(key(a), key(b)));
  body.append(...(rising ? rows : rows.reverse()));
}

function openTarget() {
  const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  if (target?.matches("details")) {
    target.open = true;
    target.querySelector("summary").focus({ preventScroll: true });
  }
}

let opened = [];

function beforePrint() {
  opened = [...document.querySelectorAll("details.incident:not([open])")];
  for (const details of opened) details.open = true;
  for (const plot of document.querySelectorAll(".plot")) {
    draw(plot);
    if (plot.dataset.drawn) Plotly.relayout(plot, { width: 680, autosize: false });
  }
}

function afterPrint() {
  for (const details of opened) details.open = false;
  for (const plot of document.querySelectorAll(".plot[data-drawn]")) Plotly.relayout(plot, { width: null, autosize: true });
}

const filter = document.querySelector(".filter");
if (filter) {
  filter.addEventListener("input", filterIncidents);
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("reset", () => setTimeout(filterIncidents));
  for (const button of document.querySelectorAll("#listed thead button"))
    button.addEventListener("click", () => sortBy(button.closest("th")));
}
for (const details of document.querySelectorAll("details.incident"))
  details.addEventListener("toggle", () => { if (details.open) drawVisible(); });
addEventListener("hashchange", openTarget);
addEventListener("beforeprint", beforePrint);
addEventListener("afterprint", afterPrint);
openTarget();
if (typeof DecompressionStream === "undefined") document.getElementById("no-figures").hidden = false;
else drawVisible();
