// The first screen: tabs of its figure and table, your case, and what is folded below it.
"use strict";

(() => {
  // -- folded parts: a link to one, or into one, opens it; print shows all -------------------------

  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  document.querySelectorAll('a[href^="#"]').forEach((link) =>
    link.addEventListener("click", () => link.hash === location.hash && reveal()));

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
    folded = [];
  });

  // -- tabs: a mode and what is shown of it --------------------------------------------------------

  const chosen = { mode: null, what: null };
  const buttons = [...document.querySelectorAll("[data-choose]")];
  const views = [...document.querySelectorAll(".view")];

  const show = () => {
    const own = views.filter((v) => v.dataset.mode === chosen.mode);
    const has = (what) => own.some((v) => v.dataset.what === what);
    const what = has(chosen.what) ? chosen.what : "time";
    for (const view of views) {
      view.hidden = view.dataset.mode !== chosen.mode || (view.dataset.what !== undefined && view.dataset.what !== what);
    }
    for (const button of buttons) {
      const { choose } = button.dataset;
      button.setAttribute("aria-pressed", String(button.value === (choose === "mode" ? chosen.mode : what)));
      if (choose === "what") button.disabled = !has(button.value);
    }
  };
  for (const button of buttons) {
    chosen[button.dataset.choose] ??= button.value;
    button.addEventListener("click", () => {
      chosen[button.dataset.choose] = button.value;
      show();
    });
  }
  if (buttons.length) show();

  // -- your case: every text is made beforehand; what fits is looked up ----------------------------

  const MIB = 2 ** 20;

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter(Boolean));
    return element;
  };

  /** A button that copies code; where the browser lets no page copy, it selects the code. */
  const copyButton = (code) => {
    const button = make("button", { type: "button", class: "copy" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    return button;
  };

  const card = (data, mode, use, kind, candidate, note, isOpen) => {
    const head = data.heads[kind];
    const box = make("div", { class: "answer", "data-kind": kind }, make("p", { class: "muted" }, head));
    const small = (text) => text && make("p", { class: "small" }, text);
    if (!candidate) {
      box.append(make("p", {}, "nothing that was measured fits"), ...[small(note)].filter(Boolean));
      return box;
    }
    const name = candidate.options ? `${candidate.name}:${candidate.options}` : candidate.name;
    const basis = data.bases[candidate.basis];
    const code = make("code", {}, mode.texts[candidate.code]);
    const details = make("details", {}, make("summary", {}, "Python"), copyButton(code),
      make("pre", { tabindex: "0", role: "region", "aria-label": `Python: ${head}` }, code));
    details.open = isOpen;
    box.append(
      make("p", {}, make("strong", {}, name), ` ${candidate.time}${basis ? ` (${basis})` : ""} · `, make("span", { class: "whole" }, candidate.memory)),
      ...[
        small(candidate.speedup),
        small(candidate.warning),
        small(kind === "other" ? (use === "swap" ? data.swap : data.changes) : ""),
        kind === "other" && make("details", { class: "evidence" }, make("summary", {}, mode.texts[candidate.brief]),
          small(mode.texts[candidate.quality]), small(data.better)),
      ].filter(Boolean),
      details,
    );
    return box;
  };

  const ask = () => {
    const form = document.getElementById("case-form");
    if (!form) return;
    const data = JSON.parse(document.getElementById("case-data").textContent);
    const out = document.getElementById("case-answer");
    const { tokens, mode, use, memory } = form.elements;
    const answer = () => {
      const own = data.modes[Number(mode.value)];
      const said = tokens.value.trim().toLowerCase().match(/^([0-9]+)([km]?)$/);
      tokens.setCustomValidity(said ? "" : "a number of tokens, as 4096 or 16k");
      tokens.reportValidity();
      if (!said) return out.replaceChildren();
      const wanted = Number(said[1]) * { "": 1, k: 1024, m: 1024 ** 2 }[said[2]];
      const far = (point) => Math.abs(Math.log(point.n / wanted));
      const point = own.points.reduce((best, one) => (far(one) < far(best) ? one : best));
      const limit = Number(memory.value) > 0 ? Number(memory.value) * MIB : Infinity;
      const fits = (c) => (!use.value || c.uses.includes(use.value)) && (limit === Infinity || (c.memory_bytes !== null && c.memory_bytes <= limit));
      const fitting = point.candidates.filter(fits);
      const open = new Set([...out.querySelectorAll("details[open]:not(.evidence)")].map((d) => d.parentElement.dataset.kind));
      const [low, high] = [own.points[0].n, own.points.at(-1).n];
      const beyond = wanted < low / 1.05 || wanted > high * 1.05;
      const near = point.n === wanted ? "" : beyond ? `Answers go from ${low.toLocaleString("en-US")} to ${high.toLocaleString("en-US")} tokens; the nearest, ${point.n.toLocaleString("en-US")}:` : `At about that, ${point.n.toLocaleString("en-US")} tokens:`;
      out.replaceChildren(
        ...[near && make("p", { class: "small" }, near)].filter(Boolean),
        ...["exact", "other"].map((kind) =>
          card(data, own, use.value, kind, fitting.find((c) => (c.type === "exact") === (kind === "exact")), point.candidates.some((c) => (c.type === "exact") === (kind === "exact")) ? "" : own.texts[point[kind]], open.has(kind))),
      );
    };
    form.addEventListener("input", answer);
    form.addEventListener("submit", (event) => event.preventDefault());
    answer();
  };
  ask();

  document.querySelectorAll("[data-more]").forEach((button) =>
    button.addEventListener("click", () => {
      button.closest(".view").querySelector("table").classList.add("every");
      button.parentElement.remove();
    }));
})();
