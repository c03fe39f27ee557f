// What the page can do with scripts: figures that answer to the pointer and to keys, one backend
// isolated in all of them, linear axes, tables that sort and filter, the data as CSV. Without
// scripts the page shows the same figures, still, and all tables.
//
// Every text comes from records and is set as text, never as markup.
"use strict";

(() => {
  const NARROW = 640; // px: of the page, as in the style sheet
  const MANY = 40; // points of a line that are not marked one by one
  const WHISKER = 2; // a whisker ends at this factor from its value, with an arrow if it goes on
  const APART = 15; // px between names at the lines' ends
  const FADED = 0.12;
  const FILTERED = 8; // rows from which on a table can be filtered

  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  /** Make an element: attributes, then children, which are elements or text. */
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  // -- numbers, as results/text/numbers.py and results/text/written.py write them ---------------------------

  const digits = (value, most = 3) =>
    value.toLocaleString("en-US", { maximumSignificantDigits: most });
  const scaled = (units) => (value) => {
    if (value === 0) return "0";
    const [factor, unit] = units.find(([f]) => Math.abs(value) >= 0.9995 * f) ?? units.at(-1);
    return `${digits(value / factor)} ${unit}`.trimEnd();
  };
  const SIZES = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];
  const TIMES = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
  const RATES = [[1e15, "PFLOP"], [1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"], [1e3, "kFLOP"], [1, "FLOP"]];
  const WRITE = {
    tokens: (n) => (n >= 1024 && n % 512 === 0 ? `${n / 1024}k` : digits(n)),
    seconds: scaled(TIMES),
    bytes: scaled(SIZES),
    operations: scaled(RATES),
    ratio: (value) => `${digits(value)} ×`,
    share: (value) => `${digits(100 * value)} %`,
    percent: (value) => `${digits(value)} %`,
    error: (value) => (value !== 0 && value < 1e-3 ? value.toExponential() : digits(value)),
    number: (value) => digits(value),
  };

  // -- marks of a backend: the shapes that the still figures have -------------------------------

  const polygon = (points) => (context, size) => {
    const r = Math.sqrt(size / Math.PI) * 1.15;
    points.forEach(([x, y], i) => (i ? context.lineTo(x * r, y * r) : context.moveTo(x * r, y * r)));
    context.closePath();
  };
  const regular = (count, turn, inner = 1) =>
    Array.from({ length: count }, (_, i) => {
      const angle = turn + (2 * Math.PI * i) / count;
      const r = i % 2 ? inner : 1;
      return [r * Math.sin(angle), -r * Math.cos(angle)];
    });
  const plus = [[-1, 3], [1, 3], [1, 1], [3, 1], [3, -1], [1, -1], [1, -3], [-1, -3], [-1, -1], [-3, -1], [-3, 1], [-1, 1]].map(([x, y]) => [x / 3, y / 3]);
  const turned = plus.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);
  const SHAPES = {
    s: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
    "^": [[0, -1], [1, 0.9], [-1, 0.9]],
    v: [[0, 1], [1, -0.9], [-1, -0.9]],
    "<": [[-1, 0], [0.9, -1], [0.9, 1]],
    ">": [[1, 0], [-0.9, -1], [-0.9, 1]],
    D: [[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]],
    d: [[0, -1.2], [0.7, 0], [0, 1.2], [-0.7, 0]],
    P: plus,
    X: turned,
    p: regular(5, 0),
    h: regular(6, 0),
    "*": regular(10, 0, 0.45),
  };
  const symbol = (marker) => (SHAPES[marker] ? { draw: polygon(SHAPES[marker]) } : "circle");

  // -- colours: the page's own variables where it has them, so that they follow light and dark --

  const color = (series) => series.color;

  // -- figures ----------------------------------------------------------------------------------

  const state = { only: null };
  const charts = [];

  const faded = (series) => (state.only !== null && series.backend !== state.only ? FADED : 1);

  const lerp = (axis, scale, share) => {
    const [low, high] = axis;
    return scale === "log" ? low * (high / low) ** share : low + share * (high - low);
  };

  /** The ends and ticks of an axis: those of the still figure, or of its other scale. */
  const scaleOf = (axis, values, chosen) => {
    if (chosen === axis.scale || axis.kind === "names") {
      const reverse = axis.ends[0] > axis.ends[1];
      const texts = new Map(axis.ticks);
      return {
        type: axis.scale,
        domain: [...axis.ends].sort((a, b) => a - b),
        reverse,
        ticks: axis.ticks.map(([at]) => at),
        write: (at) => texts.get(at) ?? "",
      };
    }
    const [low, high] = d3.extent(values);
    const domain = chosen === "log" ? [low / 1.15, high * 1.15] : [Math.min(0, low), high * 1.06];
    const ticks = (chosen === "log" ? d3.scaleLog(domain) : d3.scaleLinear(domain)).ticks(6);
    return { type: chosen, domain, reverse: false, ticks, write: WRITE[axis.kind] ?? WRITE.number };
  };

  const objects = (series) =>
    series.points.map(([x, y, low, high, told, tag, ringed, hollow]) => ({ x, y, low, high, tag, ringed, hollow, series, told: `${series.name}\n${told}` }));

  const interval = (series, points, across) => {
    const known = points.filter((p) => p.low !== null && p.high !== null && p.high > p.low);
    const look = { stroke: color(series), strokeOpacity: faded(series) };
    if (!known.length) return null;
    if (series.across) return Plot.ruleY(known, { y: "y", x1: "low", x2: "high", strokeWidth: 2, ...look });
    if (!series.joined) return Plot.ruleX(known, { x: "x", y1: "low", y2: "high", strokeWidth: 1.6, ...look });
    const low = (p) => Math.max(p.low, p.y / WHISKER);
    const high = (p) => Math.min(p.high, p.y * WHISKER);
    const arrow = (goesOn, y, rotate) =>
      Plot.dot(known.filter(goesOn), { x: "x", y, symbol: "triangle", rotate, r: 3, fill: color(series), fillOpacity: faded(series) });
    return [
      Plot.ruleX(known, { x: "x", y1: low, y2: high, strokeWidth: 1.5, ...look }),
      arrow((p) => p.low < low(p), low, 180),
      arrow((p) => p.high > high(p), high, 0),
    ];
  };

  const seriesMarks = (series) => {
    const points = objects(series);
    const marks = [interval(series, points)].flat();
    const stroke = color(series);
    const opacity = faded(series);
    if (series.joined && points.length > 1) {
      const dashes = series.dashes.split(" ").filter(Boolean).map((d) => 2 * d).join(" ") || null;
      marks.push(Plot.line(points, { x: "x", y: "y", stroke, strokeWidth: 2, strokeOpacity: opacity, strokeDasharray: dashes }));
    }
    const marked = points.length > MANY && series.joined ? points.slice(-1) : points;
    const look = { x: "x", y: "y", symbol: symbol(series.marker), r: 4.6, fillOpacity: opacity, strokeOpacity: opacity };
    const edge = (p) => (p.ringed ? "var(--ink)" : "var(--paper)");
    marks.push(Plot.dot(marked.filter((p) => !p.hollow), { ...look, fill: stroke, stroke: edge, strokeWidth: 1 }));
    // A time whose warm-up was cut short.
    marks.push(Plot.dot(marked.filter((p) => p.hollow), { ...look, fill: "var(--paper)", stroke, strokeWidth: 1.8 }));
    const tagged = points.filter((p) => p.tag);
    for (const [side, dy] of [[0, -10], [1, 11]]) {
      // Above and below in turn: neighbours on a flat line would cover each other.
      marks.push(Plot.text(tagged.filter((_, i) => i % 2 === side), { x: "x", y: "y", text: "tag", dy, fill: stroke, fillOpacity: opacity, fontSize: 10 }));
    }
    return marks;
  };

  /** Failed cases stand above the data, a row a series. */
  const failedPoints = (panel, y) => {
    const rows = [...new Set(panel.failed.map((f) => f.name))];
    return panel.failed.map((f) => ({
      ...f,
      series: f,
      y: lerp(y.domain, y.type, 0.97 - 0.06 * rows.indexOf(f.name)),
      told: `${f.name}\n${f.words}\nat ${digits(f.x, 7)}`,
    }));
  };

  const pathMarks = (path) => {
    if (path.words) {
      const look = { stroke: "currentColor", strokeOpacity: 0.5, strokeWidth: 1.2, strokeDasharray: "1.5 4" };
      const end = { text: [path.words], x: [path.place[0]], y: [path.place[1]], textAnchor: "end", dx: -5, dy: 12, fill: "var(--muted)", fontSize: 12, stroke: "var(--paper)", strokeWidth: 3 };
      return [Plot.line(path.points, look), Plot.text([0], end)];
    }
    const curve = path.steps ? "step-after" : "linear";
    return Plot.line(path.points, { curve, stroke: path.color, strokeWidth: path.steps ? 1.1 : 1.8, strokeOpacity: path.steps ? 0.6 : 1, clip: true });
  };

  /** Where an interval of x lies: shaded, and a line where it is a single place. */
  const bandMarks = (band, y) => {
    const [low, high] = y.domain;
    if (band.high <= band.low) return Plot.ruleX([band.low], { stroke: "currentColor", strokeOpacity: 0.3 });
    return Plot.rect([0], { x1: [band.low], x2: [band.high], y1: [low], y2: [high], fill: "currentColor", fillOpacity: 0.09 });
  };

  /** Write the names at the lines' ends, moved apart where two would touch. */
  const endMarks = (panel, y, height) => {
    if (!panel.ends) return [];
    const scale = (y.type === "log" ? d3.scaleLog() : d3.scaleLinear()).domain(y.domain).range([height, 0]);
    const ends = panel.series.map((s) => ({ series: s, x: s.points.at(-1)[0], at: scale(s.points.at(-1)[1]) }));
    for (const group of d3.group(ends, (e) => e.x).values()) {
      group.sort((a, b) => a.at - b.at);
      const blocks = [];
      for (const end of group) {
        blocks.push([end]);
        while (blocks.length > 1 && top(blocks.at(-1)) - bottom(blocks.at(-2)) < APART) {
          const last = blocks.pop();
          blocks.at(-1).push(...last);
        }
      }
      for (const block of blocks) {
        const first = top(block);
        block.forEach((end, i) => { end.moved = first + APART * i; });
      }
    }
    return ends.map((e) =>
      Plot.text([0], { x: [e.x], y: [scale.invert(e.moved)], text: [e.series.name], textAnchor: "start", dx: 9, fill: color(e.series), fillOpacity: faded(e.series), fontWeight: 600, fontSize: 12, stroke: "var(--paper)", strokeWidth: 3 }));
  };
  const top = (block) => d3.mean(block, (e) => e.at) - (APART * (block.length - 1)) / 2;
  const bottom = (block) => top(block) + APART * (block.length - 1);

  const ruleMarks = (rule, x) => {
    const look = { stroke: "currentColor", strokeDasharray: "4 3", strokeWidth: 1 };
    const words = { text: [rule.words], fill: "var(--muted)", fontSize: 11 };
    if (rule.y !== undefined) {
      return [Plot.ruleY([rule.y], look), Plot.text([0], { ...words, y: [rule.y], frameAnchor: "right", textAnchor: "end", dy: -7 })];
    }
    const right = rule.x > lerp(x.domain, x.type, 0.6);
    const beside = { textAnchor: right ? "end" : "start", dx: right ? -4 : 4, dy: -6 };
    return [Plot.ruleX([rule.x], look), Plot.text([0], { ...words, x: [rule.x], frameAnchor: "bottom", ...beside })];
  };

  const barPoints = (panel) =>
    panel.bars.map((bar) => ({ ...bar, series: bar, x: (bar.start + bar.end) / 2, y: bar.row, told: `${bar.name}\n${bar.words}` }));

  const draw = (chart, panel, cell) => {
    const values = (axis, at) => [
      ...panel.series.flatMap((s) => s.points.map((p) => p[at])),
      ...(at === 1 ? panel.series.filter((s) => !s.across).flatMap((s) => s.points.map((p) => (p[3] === null ? p[1] : Math.min(p[3], WHISKER * p[1])))) : []),
      ...panel.bars.flatMap((b) => (at ? [b.row] : [0, b.end])),
      ...panel.rules.map((r) => (at ? r.y : r.x)).filter((v) => v !== undefined),
    ];
    const x = scaleOf(panel.x, values(panel.x, 0), chart.scales.x ?? panel.x.scale);
    const y = scaleOf(panel.y, values(panel.y, 1), chart.scales.y ?? panel.y.scale);
    const failed = failedPoints(panel, y);
    const bars = barPoints(panel);
    const points = [...panel.series.flatMap(objects), ...failed, ...bars].filter((p) => faded(p.series) === 1);
    const names = panel.y.kind === "names" ? panel.y.ticks.flatMap(([, text]) => text.split("\n")) : [];
    const width = Math.max(240, cell.clientWidth);
    const widestTick = Math.max(...y.ticks.map((t) => String(y.write(t)).split("\n").reduce((a, b) => Math.max(a, b.length), 0)), 0);
    const marginLeft = Math.min(0.55 * width, 16 + 6.4 * widestTick);
    const rows = names.length ? panel.y.ticks.length * (names.length > panel.y.ticks.length ? 40 : 30) + 60 : 0;
    const height = rows || Number(chart.host.dataset.height) || Math.min(330, Math.max(260, 0.68 * width));
    const [marginTop, marginBottom] = [26, 44];
    const longest = panel.ends ? Math.max(...panel.series.map((s) => s.name.length)) : 0;
    const plot = Plot.plot({
      width,
      height,
      marginLeft,
      marginBottom,
      marginTop,
      marginRight: panel.ends ? Math.min(0.35 * width, 18 + 7.2 * longest) : 14,
      style: { fontFamily: "inherit", fontSize: "12px", color: "var(--ink)", background: "none", overflow: "visible" },
      x: { type: x.type, domain: x.domain, clamp: false },
      y: { type: y.type, domain: y.domain, reverse: y.reverse },
      marks: [
        Plot.gridX(x.ticks, { stroke: "var(--grid)", strokeOpacity: 1 }),
        names.length ? null : Plot.gridY(y.ticks, { stroke: "var(--grid)", strokeOpacity: 1 }),
        Plot.axisX(x.ticks, { text: x.write, label: panel.x.label || null, labelAnchor: "center", labelArrow: "none", labelOffset: 38 }),
        Plot.axisY(y.ticks, { text: y.write, label: panel.y.label || null, labelArrow: "none", tickSize: names.length ? 0 : 6 }),
        bars.length
          ? Plot.rect(bars, { x1: "start", x2: "end", y1: (b) => b.row - 0.36, y2: (b) => b.row + 0.36, fill: (b) => color(b), fillOpacity: (b) => faded(b), stroke: "var(--ink)", strokeWidth: 0.3 })
          : null,
        ...panel.bands.map((band) => bandMarks(band, y)),
        ...panel.rules.flatMap((rule) => ruleMarks(rule, x)),
        ...panel.paths.flatMap(pathMarks),
        ...panel.series.flatMap(seriesMarks),
        failed.length
          ? Plot.dot(failed, { x: "x", y: "y", symbol: "times", r: 4.5, stroke: (f) => color(f), strokeWidth: 2.2, strokeOpacity: (f) => faded(f) })
          : null,
        ...endMarks(panel, y, height - marginTop - marginBottom),
        Plot.dot(points, Plot.pointer({ x: "x", y: "y", r: 8, stroke: "var(--ink)", strokeWidth: 1.6, maxRadius: 60 })),
        Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "told", fill: "var(--paper)", stroke: "var(--muted)", fontSize: 12.5, lineHeight: 1.3, maxRadius: 60, lineWidth: 26, textPadding: 8, preferredAnchor: "bottom" })),
      ],
    });
    plot.setAttribute("aria-hidden", "true"); // the cell around it says what it shows
    cell.querySelector("svg")?.remove();
    cell.prepend(plot);
    cell.points = points.sort((a, b) => d3.ascending(a.series.name, b.series.name) || a.x - b.x);
    cell.plot = plot;
  };

  /** Keys: left and right go from point to point, up and down from series to series. */
  const stepper = (cell, output) => {
    let at = -1;
    const show = () => {
      const point = cell.points[at];
      output.textContent = point.told.replaceAll("\n", ", ");
      const box = cell.plot.getBoundingClientRect();
      const ratio = box.width / cell.plot.width.baseVal.value;
      const place = (name, value) => cell.plot.scale(name).apply(value) * ratio;
      const where = { clientX: box.left + place("x", point.x), clientY: box.top + place("y", point.y) };
      const options = { ...where, bubbles: true, pointerType: "mouse" };
      cell.plot.dispatchEvent(new PointerEvent("pointerenter", options));
      cell.plot.dispatchEvent(new PointerEvent("pointermove", options));
    };
    const otherSeries = (step) => {
      const names = [...new Set(cell.points.map((p) => p.series.name))];
      const own = cell.points[at];
      const next = names[(names.indexOf(own.series.name) + step + names.length) % names.length];
      const near = cell.points.filter((p) => p.series.name === next);
      return cell.points.indexOf(d3.least(near, (p) => Math.abs(p.x - own.x)));
    };
    cell.addEventListener("keydown", (event) => {
      const count = cell.points.length;
      if (!count) return;
      const steps = { ArrowRight: 1, ArrowLeft: -1 };
      const across = { ArrowDown: 1, ArrowUp: -1 };
      if (at >= count) at = -1;
      if (event.key in steps) at = at < 0 ? 0 : (at + steps[event.key] + count) % count;
      else if (event.key in across) at = at < 0 ? 0 : otherSeries(across[event.key]);
      else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = count - 1;
      else return;
      event.preventDefault();
      show();
    });
    cell.addEventListener("blur", () => cell.plot.dispatchEvent(new PointerEvent("pointerleave")));
  };

  const swatch = (series) => {
    const svg = d3.create("svg").attr("width", 26).attr("height", 14).attr("viewBox", "-13 -7 26 14").attr("aria-hidden", "true");
    if (series.joined) {
      const dashes = series.dashes.split(" ").filter(Boolean).map((d) => 2 * d).join(" ") || null;
      svg.append("line").attr("x1", -13).attr("x2", 13).attr("stroke", color(series)).attr("stroke-width", 2).attr("stroke-dasharray", dashes);
    }
    const context = d3.path();
    const shape = symbol(series.marker);
    if (shape === "circle") context.arc(0, 0, 4.6, 0, 2 * Math.PI);
    else shape.draw(context, 64);
    svg.append("path").attr("d", context.toString()).attr("fill", color(series));
    return svg.node();
  };

  const legend = (series) => {
    const list = make("ul", { class: "legend" });
    const seen = new Map(series.map((s) => [s.name, s]));
    for (const one of seen.values()) {
      const button = make(
        "button",
        { type: "button", "aria-pressed": "false", "data-backend": one.backend, title: `Isolate ${one.backend} in every figure`, on: { click: () => isolate(state.only === one.backend ? null : one.backend) } },
        swatch(one), one.name, one.note ? make("small", {}, one.note) : null,
      );
      list.append(make("li", {}, button));
    }
    return list;
  };

  const partsLegend = (panels) => {
    const parts = new Map(panels.flatMap((p) => p.bars).map((b) => [b.part, b]));
    const list = make("ul", { class: "legend parts" });
    for (const [name, bar] of parts) {
      const box = make("span", { class: "box" });
      box.style.background = color(bar);
      list.append(make("li", {}, box, name));
    }
    return list;
  };

  const scaleButtons = (chart) => {
    const can = (name) => chart.panels.every((p) => p[name].kind !== "names" && !p.bars.length && !["share", "percent"].includes(p[name].kind) && (p[name].scale === "log" || values(p, name).every((v) => v > 0)));
    const values = (panel, name) => panel.series.flatMap((s) => s.points.map((p) => p[name === "x" ? 0 : 1]));
    const box = make("div", { class: "scales", role: "group", "aria-label": "Scales of the axes" });
    for (const name of ["y", "x"]) {
      if (!chart.panels.length || !can(name)) continue;
      const usual = chart.panels[0][name].scale;
      const other = usual === "log" ? "linear" : "log";
      const button = make("button", { type: "button", "aria-pressed": "false" }, `${other === "log" ? "logarithmic" : "linear"} ${name} axis`);
      button.addEventListener("click", () => {
        chart.scales[name] = chart.scales[name] ? undefined : other;
        button.setAttribute("aria-pressed", String(Boolean(chart.scales[name])));
        render(chart);
      });
      box.append(button);
    }
    return box.childElementCount ? box : null;
  };

  const render = (chart) => {
    chart.dirty = false;
    chart.panels.forEach((panel, i) => draw(chart, panel, chart.cells[i]));
  };

  /** Put the living figure in the place of the still one. */
  const build = (host) => {
    const panels = read(host.dataset.panels);
    const chart = { host, panels, cells: [], scales: {}, dirty: true };
    const output = make("output", { class: "told", "aria-live": "polite" });
    // Where rows are named on the axis, as of values side by side, no legend says it again.
    const named = panels.some((p) => p.ends) || panels.every((p) => p.series.length && p.series.every((s) => s.across));
    const own = panels.some((p) => p.legend) || named;
    const grid = make("div", { class: panels.length > 2 ? "panels many" : "panels" });
    for (const panel of panels) {
      const cell = make("div", {
        class: "cell", tabindex: "0", role: "group", "aria-roledescription": "figure that keys explore",
        "aria-label": `${panel.words} Arrow keys go from point to point.`,
      });
      stepper(cell, output);
      chart.cells.push(cell);
      const title = panel.title ? make("p", { class: "panel-title" }, panel.title) : null;
      grid.append(make("div", { class: "panel" }, title, cell, panel.legend && panel.series.length ? legend(panel.series) : null));
    }
    const every = panels.flatMap((p) => p.series);
    const below = panels.some((p) => p.bars.length) ? partsLegend(panels) : own ? null : legend(every);
    const scales = named ? null : scaleButtons(chart);
    host.append(...[scales, grid, below, output].filter(Boolean));
    host.parentElement.classList.add("live");
    charts.push(chart);
    render(chart);
    host.chart = chart;
    let width = host.clientWidth;
    new ResizeObserver(() => {
      if (!host.clientWidth || Math.abs(host.clientWidth - width) < 2) return;
      width = host.clientWidth;
      render(chart);
    }).observe(host);
  };

  // -- one backend, everywhere --------------------------------------------------------------------

  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        if (!target.chart) build(target);
        else if (target.chart.dirty) render(target.chart);
      }
    },
    { rootMargin: "600px" },
  );

  const refresh = () => {
    for (const chart of charts) {
      const box = chart.host.getBoundingClientRect();
      if (box.bottom > -600 && box.top < innerHeight + 600) render(chart);
      else {
        chart.dirty = true;
        near.unobserve(chart.host);
        near.observe(chart.host);
      }
    }
  };

  const bar = document.getElementById("isolated");

  const isolate = (backend) => {
    state.only = backend;
    bar.hidden = backend === null;
    bar.querySelector("strong").textContent = backend ?? "";
    for (const button of document.querySelectorAll("[data-backend]")) {
      button.setAttribute("aria-pressed", String(button.dataset.backend === backend));
    }
    for (const body of document.querySelectorAll("tbody")) {
      const of = (row) => row.cells[0]?.firstChild?.textContent.trim().split(":")[0];
      const rows = [...body.rows];
      const concerned = backend !== null && rows.some((row) => of(row) === backend);
      for (const row of rows) {
        row.classList.toggle("faded", concerned && of(row) !== backend);
        row.classList.toggle("chosen", concerned && of(row) === backend);
      }
    }
    refresh();
  };

  // -- tables: sorted by a click on a heading, filtered by words ------------------------------------

  const UNITS = { ns: 1e-9, "µs": 1e-6, ms: 1e-3, s: 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

  const quantity = (cell) => {
    const text = (cell.querySelector("small") ? cell.firstChild?.textContent : cell.textContent) ?? "";
    const found = text.trim().match(/^([-+−]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*(\S*)/);
    if (!found) return null;
    return Number(found[1].replaceAll(",", "").replace("−", "-")) * (UNITS[found[2]] ?? 1);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const original = [...body.rows];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", class: "sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next !== "none") head.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        const keyed = original.map((row) => ({ row, number: quantity(row.cells[column]), text: row.cells[column].textContent.trim() }));
        const numbers = keyed.some((k) => k.number !== null);
        if (next !== "none") {
          keyed.sort((a, b) => {
            if (!numbers) return sign * a.text.localeCompare(b.text);
            if (a.number === null || b.number === null) return (a.number === null) - (b.number === null);
            return sign * (a.number - b.number);
          });
        }
        body.append(...keyed.map((k) => k.row));
      });
    });
  };

  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < FILTERED) return;
    const region = table.parentElement;
    const told = make("span", { class: "muted", role: "status" });
    const input = make("input", { type: "search", placeholder: "filter rows", "aria-label": `Filter the rows of ${region.getAttribute("aria-label")}`, autocomplete: "off" });
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let kept = 0;
      for (const row of rows) {
        const text = [...row.cells].map((c) => c.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        kept += !row.hidden;
      }
      told.textContent = words.length ? `${kept} of ${rows.length}` : "";
    });
    region.before(make("div", { class: "filter" }, input, told));
  };

  // -- the data -------------------------------------------------------------------------------------

  /** With scripts the download is plain CSV: the page holds it compressed. */
  const download = () => {
    const link = document.getElementById("download");
    if (!link || typeof DecompressionStream === "undefined") return;
    link.addEventListener("click", async (event) => {
      if (link.dataset.ready) return;
      event.preventDefault();
      const bytes = Uint8Array.from(atob(link.href.split(",")[1]), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const blob = await new Response(stream).blob();
      link.href = URL.createObjectURL(new Blob([blob], { type: "text/csv" }));
      link.download = link.download.replace(/\.gz$/, "");
      link.dataset.ready = "yes";
      link.click();
    });
  };

  document.documentElement.classList.add("scripted");
  document.querySelectorAll("main table").forEach((table) => {
    sortable(table);
    if (!table.classList.contains("leading")) filterable(table);
  });
  document.querySelectorAll("[data-panels]").forEach((host) => near.observe(host));
  bar.querySelector("button").addEventListener("click", () => isolate(null));
  addEventListener("keydown", (event) => event.key === "Escape" && state.only !== null && isolate(null));
  download();
})();
