"""The look of the player: CSS as text, because a FAB holds no such files."""

STYLE = """
.replay { --ink: #222222; --paper: #ffffff; --line: #9aa5b1; --soft: #eef1f4; --mark: #7a8794;
  color: var(--ink); background: var(--paper); font: 14px/1.4 system-ui, sans-serif; }
.replay .panels { display: flex; flex-wrap: wrap; gap: 12px; }
.replay .panel { flex: 1 1 420px; min-width: 0; position: relative; }
.replay canvas { width: 100%; display: block; border: 1px solid var(--line); border-radius: 6px; }
.replay .controls { display: flex; flex-wrap: wrap; gap: 8px; align-items: center;
  margin: 8px 0; }
.replay .controls input[type=range] { flex: 1 1 200px; }
.replay button, .replay select { font: inherit; color: inherit; background: var(--soft);
  border: 1px solid var(--line); border-radius: 4px; padding: 2px 10px; cursor: pointer; }
.replay .clock { font-variant-numeric: tabular-nums; min-width: 9em; }
.replay table { border-collapse: collapse; margin-top: 4px; font-variant-numeric: tabular-nums; }
.replay .panel > table { display: block; max-width: 100%; overflow-x: auto; }
.replay th, .replay td { padding: 1px 10px 1px 0; text-align: right; font-weight: normal; }
.replay th:first-child { text-align: left; }
.replay thead th { color: var(--mark); }
.replay .tip { position: absolute; pointer-events: none; background: var(--paper);
  border: 1px solid var(--line); border-radius: 4px; padding: 4px 8px; font-size: 12px;
  box-shadow: 0 1px 4px #0004; max-width: 300px; z-index: 2; }
.replay .tip td, .replay .tip th { padding: 0 6px 0 0; text-align: left; }
.replay .bar { display: inline-block; height: 8px; background: #0072b2; vertical-align: middle; }
.replay .key { color: var(--mark); font-size: 12px; margin: 6px 0; }
.replay .key i { display: inline-block; width: 10px; height: 10px; border-radius: 5px;
  margin: 0 3px 0 10px; }
@media (prefers-color-scheme: dark) {
  .replay { --ink: #e6e9ec; --paper: #15191d; --line: #55606b; --soft: #262c32;
    --mark: #98a4b0; }
}
@media print { .replay .controls { display: none; } }
"""
