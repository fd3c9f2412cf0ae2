"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#d4a72c", "#ff9da7", "#9c755f", "#8a8f98"];
const CLOCKS = { step: "step", images_seen: "rows seen", wall_s: "minutes" };
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

const all = (selector) => [...document.querySelectorAll(selector)];
const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;"); // plotly reads a little HTML in names

// --- plots ---------------------------------------------------------------------------------------------------------

function axis(more) {
  return { gridcolor: shade("--line"), zerolinecolor: shade("--line"), linecolor: shade("--line"), automargin: true, ...more };
}

function layout(more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: COLOURS, margin: { l: 8, r: 12, t: 12, b: 8 },
    font: { family: shade("--text"), size: 12, color: shade("--soft") },
    hoverlabel: { bgcolor: shade("--card"), bordercolor: shade("--line"), font: { color: shade("--ink") }, namelength: -1 },
    ...more,
  };
}

function clock() {
  return document.querySelector("input[name=clock]:checked").value;
}

function ticks(values, key) {
  return key === "wall_s" ? values.map((v) => (v === null || v === undefined ? null : v / 60)) : values;
}

function curve(line, key) {
  const few = line.y.length <= 40, gaps = line.y.includes(null);
  return {
    type: "scatter", mode: few || gaps ? "lines+markers" : "lines", name: plain(line.name), y: line.y,
    x: ticks(DATA.clocks[line.clock][key], key), line: { width: 1.75 }, marker: { size: few ? 6 : 4 },
    hovertemplate: "%{y:.5g}",
  };
}

function final(plot, key) {
  const { value, standard_error, n } = plot.final;
  return {
    type: "scatter", mode: "markers", name: `final, n = ${n.toLocaleString("en")}`, y: [value], x: ticks([DATA.end[key]], key),
    marker: { symbol: "diamond", size: 10, color: shade("--mark") }, hovertemplate: "%{y:.5g}",
    error_y: { type: "data", array: [standard_error || 0], color: shade("--mark"), visible: standard_error !== null },
  };
}

function drawCurve(element) {
  const plot = DATA.sections[element.dataset.section].plots[element.dataset.plot], key = clock();
  const lines = plot.lines.map((line) => curve(line, key)).concat(plot.final ? [final(plot, key)] : []);
  const log = document.querySelector("input[name=log]").checked;
  const below = lines.length > 1 ? 19 * lines.length + 6 : 0, range = plot.frame ? plot.frame.range : undefined;
  Plotly.react(element, lines, layout({
    height: 250 + below, margin: { l: 8, r: 12, t: 12, b: 44 + below }, hovermode: "x unified", showlegend: below > 0,
    legend: { yref: "container", yanchor: "bottom", y: 0, xanchor: "left", x: 0 },
    xaxis: axis({ title: { text: CLOCKS[key], standoff: 6 }, type: log ? "log" : "linear", rangemode: "tozero" }),
    yaxis: axis(plot.log ? { type: "log", dtick: "D2", tickformat: "~g" } : { range }),
  }), CONFIG);
}

function drawMap(element) {
  const map = DATA.maps[element.dataset.map], [x, y] = map.places;
  const labels = map.labels || x.map(() => null), kinds = [...new Set(labels)].sort((a, b) => a - b);
  const narrow = element.clientWidth < 600, many = kinds.length > COLOURS.length;
  const groups = (many ? [null] : kinds).map((kind) => [kind, labels.map((l, i) => i).filter((i) => many || labels[i] === kind)]);
  Plotly.react(element, groups.map(([kind, rows]) => ({
    ...(y ? { type: "scatter", mode: "markers", y: rows.map((i) => y[i]) } : { type: "histogram", nbinsx: 60, opacity: 0.7 }),
    x: rows.map((i) => x[i]), name: kind === null ? map.variable : `label ${kind}`,
    marker: { size: 6, opacity: 0.8, line: { width: 0 }, ...(many ? { color: rows.map((i) => labels[i]), colorscale: "Portland", showscale: true } : {}) },
    ...(y ? { text: rows.map((i) => `row ${map.rows[i]}` + (map.labels ? `, label ${labels[i]}` : "")), hovertemplate: "%{text}<extra></extra>" } : {}),
  })), layout({
    height: narrow ? 420 : 560, showlegend: groups.length > 1, barmode: "overlay", hovermode: "closest",
    legend: narrow ? { orientation: "h", yref: "container", yanchor: "bottom", y: 0 } : {},
    xaxis: axis({ title: { text: map.titles[0] } }),
    yaxis: axis({ title: { text: y ? map.titles[1] : "rows" }, ...(y ? { scaleanchor: "x" } : {}) }),
  }), CONFIG);
}

function drawPaths(element) {
  Plotly.react(element, DATA[element.dataset.paths].map((line) => ({
    type: "scatter", mode: "lines+markers", name: plain(line.name), x: line.x, y: line.y, marker: { size: 6 },
  })), layout({ height: 460, hovermode: "closest", xaxis: axis({}), yaxis: axis({ scaleanchor: "x" }) }), CONFIG);
}

function drawAll() {
  all(".curve").forEach(drawCurve);
  all("[data-map]").forEach(drawMap);
  all("[data-paths]").forEach(drawPaths);
}

// --- pictures ------------------------------------------------------------------------------------------------------

function slide(box) {
  const range = box.querySelector("input"), button = box.querySelector("button"), frames = [...box.querySelectorAll(".frame")];
  if (!range) return; // there is only one step
  let playing = null;
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== Number(range.value); });
    const title = frames[range.value].dataset.title;
    box.querySelector("output").textContent = title;
    range.setAttribute("aria-valuetext", title);
  };
  const stop = () => { clearInterval(playing); playing = null; button.textContent = "▶"; button.ariaLabel = "play"; };
  const next = () => { range.value = Number(range.value) + 1; show(); if (Number(range.value) === frames.length - 1) stop(); };
  button.addEventListener("click", () => {
    if (playing) return stop();
    if (Number(range.value) === frames.length - 1) { range.value = 0; show(); }
    button.textContent = "❚❚"; button.ariaLabel = "pause";
    playing = setInterval(next, 500);
  });
  range.addEventListener("input", () => { if (playing) stop(); show(); });
  show();
}

all(".frames").forEach(slide);

// --- the library that draws, which the page holds gzipped ------------------------------------------------------------

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function tellMissing(what) {
  const note = document.createElement("p");
  note.className = "absent";
  note.textContent = `Curves and maps are not drawn: ${what}. Every number is in the tables of this page and in metrics.jsonl.`;
  document.querySelector("header").append(note);
  all(".plot").forEach((plot) => { plot.hidden = true; });
}

async function draw() {
  if (!window.DecompressionStream) {
    return tellMissing("this browser has no DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 and later have it)");
  }
  await unpack("plotly");
  all(".clock input").forEach((input) => input.addEventListener("change", () => all(".curve").forEach(drawCurve)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
}

draw();
