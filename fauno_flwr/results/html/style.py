"""Looks and switches of a page: CSS and JavaScript as text, as a FAB holds no such files."""

STYLE = """
:root { --ink: #1d2329; --paper: #f5f7f9; --card: #ffffff; --line: #d5dbe1; --soft: #eef1f4;
  --quiet: #5b6772; --link: #0064a0; --warn: #fff4e0; --warn-line: #e69f00; color-scheme: light; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #15191d; --card: #1d2328;
  --line: #3a444d; --soft: #262d33; --quiet: #a3aeb8; --link: #74bdf0; --warn: #3a2f18;
  --warn-line: #e69f00; color-scheme: dark; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main, header { max-width: 1280px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 18px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 34px 0 10px; }
h3 { font-size: 1rem; margin: 20px 0 6px; }
p { margin: 6px 0; max-width: 80ch; }
a { color: var(--link); }
.quiet, figcaption small { color: var(--quiet); }
nav { position: sticky; top: 0; z-index: 9; background: var(--paper);
  border-bottom: 1px solid var(--line); }
nav div { max-width: 1280px; margin: 0 auto; padding: 8px 20px; display: flex; flex-wrap: wrap;
  gap: 4px 18px; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line); margin: 12px 0;
  padding: 8px 14px; border-radius: 4px; }
.warnings ul { margin: 0; padding-left: 18px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 370px), 1fr));
  gap: 12px; margin: 10px 0; }
figure { margin: 0; min-width: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 12px; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; font-size: 0.93rem; }
figcaption small { display: block; font-weight: normal; }
.plot { background: #ffffff; border-radius: 4px; }
@media (max-width: 560px) { .long-legend { overflow-x: auto; }
  .long-legend .plot { width: 540px; } }
.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.93rem; }
main > section .scroll th, main > section .scroll td { padding: 3px 12px 3px 0; text-align: right;
  vertical-align: top; font-weight: normal; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
main > section .scroll thead th { color: var(--quiet); }
main > section .scroll th:first-child { text-align: left; }
main > section .text td, main > section .text thead th { text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
main > section .map thead th { white-space: normal; max-width: 11.5em; vertical-align: bottom; }
td.heat { text-align: center !important; padding: 3px 8px !important; color: #1d2329; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
fieldset { border: 0; margin: 8px 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 14px;
  align-items: center; }
fieldset legend { float: left; padding: 0; margin-right: 4px; color: var(--quiet); }
.choices label { display: inline-flex; gap: 5px; align-items: center; cursor: pointer; }
.toggles { gap: 4px; max-height: 9.5em; overflow-y: auto; }
.toggles button { font: inherit; font-size: 0.82rem; color: inherit; background: var(--soft);
  border: 1px solid var(--line); border-left: 4px solid var(--line); border-radius: 4px;
  padding: 0 7px; cursor: pointer; }
.toggles button[aria-pressed=true] { border-color: var(--mark); font-weight: 600; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--link); }
img { max-width: 100%; background: #ffffff; }
footer { max-width: 1280px; margin: 30px auto; padding: 0 20px; color: var(--quiet);
  font-size: 0.87rem; }
main .replay p { max-width: none; }
main .replay .panel :is(th, td) { padding-right: 8px; font-size: 13px; }
main .replay { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; --paper: var(--card); }
@media print { nav, fieldset { display: none; } body { background: #ffffff; }
  main, header { max-width: none; } .grid { grid-template-columns: 1fr 1fr; } }
"""

SCRIPT = r"""
"use strict";
(() => {
  const find = id => Bokeh.documents.map(doc => doc.get_model_by_id(id)).find(model => model);
  const listed = text => text.split(" ").filter(id => id).map(find);

  // Show other columns: those whose names end with the value that was chosen.
  function choose(control, input) {
    for (const source of listed(control.dataset.sources)) {
      const data = {...source.data};
      for (const name of Object.keys(data)) {
        const [column, option] = name.split("|");
        if (option === input.value) data[column] = data[name];
      }
      source.data = data;
    }
    for (const plot of listed(control.dataset.plots)) {
      plot.below[0].axis_label = input.dataset.label;
      plot.reset.emit();
    }
  }

  // A colour of the control that no other line has which is on; without colours, there is none.
  function freeColour(control, row) {
    const palette = (control.dataset.palette || "").split(" ");
    const used = [...control.querySelectorAll("[aria-pressed=true]")].map(button =>
      button.style.getPropertyValue("--mark"));
    return palette.find(colour => !used.includes(colour)) || palette[row % palette.length];
  }

  // Switch the looks of the rows of one line.
  function toggle(control, button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    const row = Number(button.dataset.row);
    const colour = on && freeColour(control, row);
    if (colour) button.style.setProperty("--mark", colour);
    button.setAttribute("aria-pressed", on);
    for (const source of listed(control.dataset.sources)) {
      const data = {...source.data};
      for (const name of Object.keys(data)) {
        const [column, state] = name.split("|");
        if (state !== (on ? "on" : "off")) continue;
        data[column] = Array.from(data[column], (value, i) =>
          (data.row ? data.row[i] : i) === row ? data[name][i] : value);
      }
      if (colour) data.colour[row] = colour;
      source.data = data;
    }
  }

  for (const control of document.querySelectorAll(".choices"))
    control.addEventListener("change", event => choose(control, event.target));
  for (const control of document.querySelectorAll(".toggles"))
    control.addEventListener("click", event => {
      if (event.target.tagName === "BUTTON") toggle(control, event.target);
    });
})();
"""
