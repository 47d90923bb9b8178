"use strict";

// -- tables that sort -------------------------------------------------------------------------------------------------

function sortKey(cell, numeric) {
  const number = cell.querySelector("data");
  if (number) return Number(number.value);
  return numeric ? "" : cell.textContent.trim(); // among numbers, words say why there is none
}

function compareKeys(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const rising = header.getAttribute("aria-sort") !== "ascending";
  const body = table.tBodies[0];
  const numeric = header.classList.contains("number");
  const rows = Array.from(body.rows, (row) => ({ row, key: sortKey(row.cells[column], numeric) }));
  const empty = rows.filter((line) => line.key === "");
  const full = rows.filter((line) => line.key !== "");
  full.sort((a, b) => (rising ? compareKeys(a.key, b.key) : compareKeys(b.key, a.key)));
  body.append(...[...full, ...empty].map((line) => line.row)); // cells without a value stay at the end
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const header of document.querySelectorAll("table.sortable th[aria-sort]")) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}

// -- figures that zoom ------------------------------------------------------------------------------------------------

const zoom = document.getElementById("zoom");
const stage = zoom.querySelector(".stage");
let scale = 1;
let opener = null;

function setScale(wanted, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const before = scale;
  scale = Math.min(16, Math.max(0.5, wanted));
  const figure = stage.querySelector("svg");
  const box = figure.viewBox.baseVal;
  const fit = Math.min(stage.clientWidth, (stage.clientHeight * box.width) / box.height);
  figure.style.width = `${fit * scale}px`;
  // what was under the pointer stays there
  stage.scrollLeft = (stage.scrollLeft + x) * (scale / before) - x;
  stage.scrollTop = (stage.scrollTop + y) * (scale / before) - y;
}

function enlarge(figure) {
  opener = figure.querySelector(".enlarge");
  zoom.querySelector("h2").textContent = figure.querySelector("figcaption strong").textContent;
  stage.replaceChildren(figure.querySelector("svg").cloneNode(true));
  zoom.showModal();
  scale = 1;
  setScale(1);
  stage.focus();
}

for (const figure of document.querySelectorAll("figure")) {
  figure.querySelector(".enlarge").addEventListener("click", () => enlarge(figure));
  figure.querySelector(".card").addEventListener("click", () => enlarge(figure));
}

const actions = { in: () => setScale(scale * 1.4), out: () => setScale(scale / 1.4), fit: () => setScale(1), close: () => zoom.close() };
for (const button of zoom.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", actions[button.dataset.zoom]);
}
zoom.addEventListener("keydown", (event) => {
  const action = { "+": "in", "=": "in", "-": "out", 0: "fit" }[event.key];
  if (action) actions[action]();
});
zoom.addEventListener("close", () => {
  stage.replaceChildren();
  if (opener) opener.focus();
});
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const frame = stage.getBoundingClientRect();
  setScale(scale * Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });
stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
stage.addEventListener("pointermove", (event) => {
  if (!stage.hasPointerCapture(event.pointerId)) return;
  stage.scrollLeft -= event.movementX;
  stage.scrollTop -= event.movementY;
});

// -- light and dark ---------------------------------------------------------------------------------------------------

const theme = document.getElementById("theme");

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
}

function remembered(name) {
  try { // a browser may refuse to remember anything for a page from the file system
    if (name !== undefined) localStorage.setItem("kdlab-theme", name);
    return localStorage.getItem("kdlab-theme") || "";
  } catch {
    return name || "";
  }
}

theme.value = remembered();
setTheme(theme.value);
theme.addEventListener("change", () => setTheme(remembered(theme.value)));
