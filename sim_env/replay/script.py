"""The player of replays: JavaScript and CSS as text, because a FAB holds no such files."""

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

SCRIPT = r"""
"use strict";
(() => {
  // Events and outcomes, as the recording numbers them.
  const BORN = 0, QUEUED = 1, STARTED = 2, SENT_ON = 3, SERVED = 4, ENDED = 5, FINISHED = 1;
  // Of Okabe and Ito, who chose them for the colour-blind; as in the figures.
  const COLOURS = {overflow: "#0072B2", deadline: "#E69F00", client: "#009E73",
                   failure: "#CC79A7"};
  const SHAPES = {rpi: "circle", tx2: "triangle", nuc: "square", server: "diamond"};
  const BUCKET = 64;   // ticks; messages in flight are found by the bucket of the time
  const FLASH = 1.0;   // seconds on the screen in which a loss is shown
  const MOST_NAMES = 60;
  const LARGEST = 25;  // size of the largest task drawn; that of a mean one is 10
  const RECENT = 4;    // decisions in the tip of a node

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(inflated).arrayBuffer());
    const size = planes.length / 4, numbers = new Int32Array(size);
    for (let i = 0; i < size; i++)
      numbers[i] = planes[i] | planes[size + i] << 8 | planes[2 * size + i] << 16 |
        planes[3 * size + i] << 24;
    return numbers;
  }

  // Columns of events: ticks and tasks are differences to the row before, arrivals to departures.
  function restore([tick, event, task, node, value]) {
    for (let i = 0; i < tick.length; i++) {
      if (i) { tick[i] += tick[i - 1]; task[i] += task[i - 1]; }
      if (event[i] === SENT_ON || event[i] === SERVED) value[i] += tick[i];
    }
  }

  // Number of entries of a sorted array that are at most x.
  function count(sorted, x) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= x) low = middle + 1; else high = middle;
    }
    return low;
  }

  // What happened under one policy, prepared so that any moment can be drawn at once.
  class Episode {
    constructor(network, about, columns) {
      Object.assign(this, about);
      this.network = network;
      this.kindOf = Object.fromEntries(
        Object.entries(network.losses).map(([kind, column]) => [column, kind]));
      const [tick, event, task, node, value] = columns.events;
      const tasks = 1 + task.reduce((a, b) => Math.max(a, b), -1);
      const nodes = network.names.length;
      const at = new Int32Array(tasks).fill(-1), born = new Int32Array(tasks);
      const inQueue = new Uint8Array(tasks);
      this.size = new Int32Array(tasks);
      this.origin = new Int32Array(tasks);
      this.outcome = new Int32Array(tasks).fill(-1);
      this.served = Array.from({length: nodes}, () => []);
      const moves = Array.from({length: nodes}, () => []);
      this.flights = [];
      this.losses = [];
      this.sent = new Map();
      const births = [], ends = [];
      const leave = (i, when) => {
        if (inQueue[i]) moves[at[i]].push([when, -1]);
        inQueue[i] = 0;
      };
      for (let row = 0; row < tick.length; row++) {
        const t = tick[row], i = task[row], n = node[row], v = value[row];
        if (event[row] === BORN) {
          [at[i], born[i], this.size[i], this.origin[i]] = [n, t, v, n];
          births.push([t, this.measures(t)]);
        } else if (event[row] === QUEUED) {
          at[i] = n;
          inQueue[i] = 1;
          moves[n].push([t, 1]);
        } else if (event[row] === SENT_ON) {
          leave(i, t);
          this.flights.push({start: t, due: v, from: at[i], to: n, task: i, home: false});
          this.sent.set(t + ":" + i, n);
          at[i] = n;
        } else if (event[row] === SERVED) {
          leave(i, t + 1);
          this.served[n].push(t + 1);
          if (v > t + 1 && n !== this.origin[i])
            this.flights.push({start: t + 1, due: v, from: n, to: this.origin[i], task: i,
                               home: true});
        } else if (event[row] === ENDED) {
          leave(i, t);
          this.outcome[i] = v;
          ends.push([t, v, this.measures(born[i]), t - born[i]]);
          if (v !== FINISHED) this.losses.push({tick: t, node: n, kind: this.kindOf[v]});
        }
      }
      const byTick = (a, b) => a[0] - b[0];
      this.moves = moves.map(steps => {
        steps.sort(byTick);
        let sum = 0;
        return {tick: Int32Array.from(steps, s => s[0]),
                length: Int32Array.from(steps, s => sum += s[1])};
      });
      this.births = births.sort(byTick);
      this.ends = ends.sort(byTick);
      this.losses.sort((a, b) => a.tick - b.tick);
      this.served.forEach(ticks => ticks.sort((a, b) => a - b));
      this.index();
      this.readChanges(columns);
      this.readDecisions(columns);
    }

    measures(tick) { return tick >= this.window[0] && tick < this.window[1]; }

    // Sums over time of births and ends: all tasks, and those born in the window.
    index() {
      const kinds = Object.keys(this.network.losses);
      this.totals = [false, true].map(measured => {
        const births = this.births.filter(b => !measured || b[1]);
        const ends = this.ends.filter(e => !measured || e[2]);
        const sums = {tick: Int32Array.from(ends, e => e[0]),
                      born: Int32Array.from(births, b => b[0])};
        let finished = 0, response = 0;
        const lost = Object.fromEntries(kinds.map(kind => [kind, 0]));
        sums.rows = ends.map(([, outcome, , span]) => {
          if (outcome === FINISHED) { finished += 1; response += span; }
          else lost[this.kindOf[outcome]] += 1;
          return {finished, response, ...lost};
        });
        sums.none = {finished: 0, response: 0,
                     ...Object.fromEntries(kinds.map(kind => [kind, 0]))};
        return sums;
      });
      this.buckets = new Map();
      this.flights.forEach((flight, i) => {
        for (let b = Math.floor(flight.start / BUCKET); b <= flight.due / BUCKET; b++) {
          if (!this.buckets.has(b)) this.buckets.set(b, []);
          this.buckets.get(b).push(i);
        }
      });
    }

    readChanges(columns) {
      this.changes = this.network.names.map(() => ({tick: [], up: []}));
      const [tick, node, up] = columns.nodes;
      for (let i = 0; i < tick.length; i++) {
        this.changes[node[i]].tick.push(tick[i]);
        this.changes[node[i]].up.push(up[i]);
      }
      const links = columns.links;
      this.links = Array.from(links[0], (t, i) =>
        ({tick: t, a: links[1][i], b: links[2][i], up: links[3][i]}));
    }

    readDecisions(columns) {
      this.decided = this.network.names.map(() => ({tick: [], row: []}));
      this.scores = columns.decisions;
      if (!this.scores) return;
      const [tick, node] = this.scores;
      for (let i = 0; i < tick.length; i++) {
        this.decided[node[i]].tick.push(tick[i]);
        this.decided[node[i]].row.push(i);
      }
    }

    // Tasks born, finished and lost up to a time, of all tasks or of the measured ones.
    counts(time, measured) {
      const sums = this.totals[measured ? 1 : 0];
      const row = count(sums.tick, time);
      const {finished, response, ...lost} = row ? sums.rows[row - 1] : sums.none;
      const born = count(sums.born, time);
      const mean = finished ? response * this.network.tick / finished : null;
      return {born, finished, lost, response: mean};
    }

    load(node, time) {
      const {tick, length} = this.moves[node];
      const row = count(tick, time);
      return row ? length[row - 1] : 0;
    }

    isUp(node, time) {
      const {tick, up} = this.changes[node];
      const row = count(tick, time);
      return row ? up[row - 1] === 1 : true;
    }

    brokenLinks(time) {
      const broken = new Map();
      for (const {tick, a, b, up} of this.links) {
        if (tick > time) break;
        if (up) broken.delete(a + ":" + b); else broken.set(a + ":" + b, [a, b]);
      }
      return broken.values();
    }

    flying(time) {
      const near = this.buckets.get(Math.floor(time / BUCKET)) || [];
      return near.map(i => this.flights[i]).filter(f => f.start <= time && time < f.due);
    }

    // The newest decisions of a node: their slots with probability and, if known, value.
    decisions(node, time) {
      const {tick, row} = this.decided[node];
      const newest = count(tick, time), slots = this.network.slots[node];
      return row.slice(Math.max(0, newest - RECENT), newest).reverse().map(i => {
        const [ticks, , tasks, first, probability, value] = this.scores;
        const to = this.sent.get(ticks[i] + ":" + tasks[i]);
        return {tick: ticks[i], task: tasks[i], to: to === undefined ? node : to,
                slots: slots.map((to, k) => ({to, probability: probability[first[i] + k] / 1e4,
                  value: value.length ? value[first[i] + k] / 1e3 : null}))};
      });
    }
  }

  class Panel {
    constructor(player, element) {
      this.player = player;
      this.canvas = element.querySelector("canvas");
      this.choice = element.querySelector("select");
      this.table = element.querySelector("tbody");
      this.tip = element.querySelector(".tip");
      this.ground = document.createElement("canvas");
      this.hovered = null;
      this.choice.addEventListener("change", () => player.draw());
      this.canvas.addEventListener("mousemove", event => this.hover(event));
      this.canvas.addEventListener("mouseleave", () => { this.hovered = null; player.draw(); });
    }

    get episode() { return this.player.episodes[this.choice.selectedIndex]; }

    resize() {
      const [width, height] = this.player.network.paper;
      const shown = this.canvas.clientWidth || width;
      this.scale = shown / width;
      const density = window.devicePixelRatio || 1;
      for (const canvas of [this.canvas, this.ground]) {
        canvas.width = Math.round(shown * density);
        canvas.height = Math.round(shown * height / width * density);
      }
      this.canvas.style.height = shown * height / width + "px";
      this.density = density * this.scale;
      this.paintGround();
    }

    // What does not change: links and names.
    paintGround() {
      const {network, colours} = this.player;
      const pen = this.ground.getContext("2d");
      pen.setTransform(this.density, 0, 0, this.density, 0, 0);
      pen.fillStyle = colours.paper;
      pen.fillRect(0, 0, ...network.paper);
      pen.strokeStyle = colours.line;
      const crowd = Math.min(1, 150 / Math.max(this.player.links.length, 1));
      pen.globalAlpha = Math.max(0.8 * crowd, 0.04);
      pen.lineWidth = 0.8;
      pen.beginPath();
      for (const [a, b] of this.player.links) {
        pen.moveTo(network.x[a], network.y[a]);
        pen.lineTo(network.x[b], network.y[b]);
      }
      pen.stroke();
      pen.globalAlpha = 1;
      if (network.names.length > MOST_NAMES) return;
      pen.font = "8.5px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.lineWidth = 2.5;
      pen.strokeStyle = colours.paper;
      pen.fillStyle = colours.ink;
      pen.textBaseline = "middle";
      network.names.forEach((name, n) => {
        pen.strokeText(name, ...network.labels[n]);
        pen.fillText(name, ...network.labels[n]);
      });
    }

    draw(time) {
      const pen = this.canvas.getContext("2d");
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.drawImage(this.ground, 0, 0);
      pen.setTransform(this.density, 0, 0, this.density, 0, 0);
      this.drawBroken(pen, time);
      this.drawFlights(pen, time);
      this.drawNodes(pen, time);
      this.drawLosses(pen, time);
      this.fill(time);
      this.showTip(time);
    }

    drawBroken(pen, time) {
      const {network} = this.player;
      pen.strokeStyle = COLOURS.failure;
      pen.lineWidth = 1.5;
      pen.setLineDash([4, 3]);
      for (const [a, b] of this.episode.brokenLinks(time)) {
        pen.beginPath();
        pen.moveTo(network.x[a], network.y[a]);
        pen.lineTo(network.x[b], network.y[b]);
        pen.stroke();
      }
      pen.setLineDash([]);
    }

    drawFlights(pen, time) {
      const {network, colours} = this.player, episode = this.episode;
      for (const {start, due, from, to, task, home} of episode.flying(time)) {
        const part = (time - start) / (due - start);
        const x = network.x[from] + part * (network.x[to] - network.x[from]);
        const y = network.y[from] + part * (network.y[to] - network.y[from]);
        const kind = episode.kindOf[episode.outcome[task]];
        pen.fillStyle = COLOURS[kind] || colours.mark;
        pen.beginPath();
        if (home) pen.rect(x - 1.2, y - 1.2, 2.4, 2.4);
        else pen.arc(x, y, 1.2 + 0.13 * Math.min(episode.size[task], LARGEST), 0, 2 * Math.PI);
        pen.fill();
      }
    }

    drawNodes(pen, time) {
      const {network, colours} = this.player, episode = this.episode;
      for (let n = 0; n < network.names.length; n++) {
        const up = episode.isUp(n, time);
        const load = Math.sqrt(Math.min(1, episode.load(n, time) / network.capacity[n]));
        pen.fillStyle = up ? blue(load) : colours.paper;
        pen.strokeStyle = n === this.hovered ? "#D55E00" : colours.ink;
        pen.lineWidth = n === this.hovered ? 2 : 0.8;
        if (!up) pen.setLineDash([2, 2]);
        shape(pen, SHAPES[network.roles[n]] || "circle", network.x[n], network.y[n],
              network.radius[n]);
        pen.fill();
        pen.stroke();
        pen.setLineDash([]);
        if (!up) {
          const r = network.radius[n] * 0.6;
          pen.strokeStyle = COLOURS.failure;
          pen.beginPath();
          pen.moveTo(network.x[n] - r, network.y[n] - r);
          pen.lineTo(network.x[n] + r, network.y[n] + r);
          pen.moveTo(network.x[n] + r, network.y[n] - r);
          pen.lineTo(network.x[n] - r, network.y[n] + r);
          pen.stroke();
        }
      }
    }

    // A ring that grows around the place of a loss, in the colour of its reason.
    drawLosses(pen, time) {
      const {network} = this.player, losses = this.episode.losses;
      const span = FLASH * this.player.speed / network.tick;
      let row = count(this.episode.lossTicks, time) - 1;
      for (; row >= 0 && losses[row].tick > time - span; row--) {
        const {tick, node, kind} = losses[row], age = (time - tick) / span;
        pen.globalAlpha = 1 - age;
        pen.strokeStyle = COLOURS[kind];
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(network.x[node], network.y[node], network.radius[node] + 2 + 10 * age, 0,
                2 * Math.PI);
        pen.stroke();
      }
      pen.globalAlpha = 1;
    }

    fill(time) {
      const rows = [["all tasks", false], ["measured tasks", true]].map(([name, measured]) => {
        const {born, finished, lost, response} = this.episode.counts(time, measured);
        const cells = [born, finished, ...Object.values(lost)].map(n => n.toLocaleString("en"));
        cells.push(response === null ? "-" : response.toFixed(2));
        return `<tr><th>${name}</th>${cells.map(c => `<td>${c}</td>`).join("")}</tr>`;
      });
      this.table.innerHTML = rows.join("");
    }

    hover(event) {
      const {network} = this.player, box = this.canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) / this.scale, y = (event.clientY - box.top) / this.scale;
      let best = null, least = Infinity;
      network.names.forEach((_, n) => {
        const apart = Math.hypot(network.x[n] - x, network.y[n] - y) - network.radius[n];
        if (apart < 4 && apart < least) [best, least] = [n, apart];
      });
      this.hovered = best;
      this.player.draw();
    }

    showTip(time) {
      const n = this.hovered, {network} = this.player;
      this.tip.hidden = n === null;
      if (n === null) return;
      const episode = this.episode, names = network.names, second = network.tick;
      const lines = [`<b>${escape(names[n])}</b> (${escape(network.roles[n])})`,
        `${episode.load(n, time)} of ${network.capacity[n]} tasks` +
          (episode.isUp(n, time) ? "" : ", failed"),
        `${count(episode.served[n], time).toLocaleString("en")} tasks served so far`];
      const made = episode.decisions(n, time);
      if (made.length) {
        const [newest] = made;
        lines.push("decisions: " + made.map(d =>
          `${(d.tick * second).toFixed(1)} s → ${escape(d.to === n ? "keep" : names[d.to])}`)
          .join("; "));
        const rows = newest.slots.map(({to, probability, value}) =>
          `<tr><th>${escape(to === n ? "keep" : names[to])}</th>` +
          `<td><span class="bar" style="width:${Math.round(60 * probability)}px"></span> ` +
          `${(100 * probability).toFixed(0)} %</td>` +
          (value === null ? "" : `<td>${value.toFixed(2)}</td>`) + "</tr>");
        const head = newest.slots[0].value === null ? "" : "<th>value</th>";
        lines.push(`<table><tr><th>newest</th><th>probability</th>${head}</tr>` +
          rows.slice(0, 12).join("") + "</table>");
      }
      this.tip.innerHTML = lines.join("<br>");
      const left = network.x[n] > network.paper[0] / 2;
      const x = network.x[n] * this.scale, y = network.y[n] * this.scale;
      this.tip.style.left = left ? "auto" : x + 16 + "px";
      this.tip.style.right = left ? this.canvas.clientWidth - x + 16 + "px" : "auto";
      this.tip.style.top = Math.max(0, y - 20) + "px";
    }
  }

  function escape(text) {
    return text.replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;",
                                          '"': "&quot;"})[c]);
  }

  function blue(part) {
    const mix = (a, b) => Math.round(a + part * (b - a));
    return `rgb(${mix(247, 8)}, ${mix(251, 48)}, ${mix(255, 107)})`;
  }

  function shape(pen, kind, x, y, radius) {
    pen.beginPath();
    if (kind === "circle") { pen.arc(x, y, radius, 0, 2 * Math.PI); return; }
    const [corners, turn, size] = {triangle: [3, -90, 1.3], square: [4, 45, 1.2],
                                   diamond: [4, 0, 1.2]}[kind];
    for (let i = 0; i < corners; i++) {
      const angle = (turn + 360 * i / corners) * Math.PI / 180;
      pen.lineTo(x + size * radius * Math.cos(angle), y + size * radius * Math.sin(angle));
    }
    pen.closePath();
  }

  class Player {
    constructor(root, network, episodes) {
      this.root = root;
      this.network = network;
      this.episodes = episodes;
      for (const episode of episodes)
        episode.lossTicks = Int32Array.from(episode.losses, loss => loss.tick);
      this.links = network.slots.flatMap((slots, n) =>
        slots.filter(m => m > n).map(m => [n, m]));
      this.end = Math.max(...episodes.map(episode => episode.ticks));
      this.time = 0;
      this.playing = false;
      this.panels = [...root.querySelectorAll(".panel")].map(e => new Panel(this, e));
      this.find(root);
      this.recolour();
      window.matchMedia("(prefers-color-scheme: dark)")
        .addEventListener("change", () => this.recolour());
      new ResizeObserver(() => this.resize()).observe(root);
    }

    find(root) {
      this.button = root.querySelector(".play");
      this.slider = root.querySelector("input[type=range]");
      this.clock = root.querySelector(".clock");
      this.speeds = root.querySelector(".speed");
      this.slider.max = this.end;
      this.button.addEventListener("click", () => this.toggle());
      root.querySelector(".back").addEventListener("click", () => this.step(-1));
      root.querySelector(".forward").addEventListener("click", () => this.step(1));
      this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
      root.addEventListener("keydown", event => this.key(event));
    }

    key(event) {
      const typing = ["SELECT", "BUTTON"].includes(event.target.tagName);
      const moves = {ArrowLeft: () => this.step(event.shiftKey ? -10 : -1),
                     ArrowRight: () => this.step(event.shiftKey ? 10 : 1),
                     Home: () => this.seek(0), End: () => this.seek(this.end),
                     " ": () => this.toggle()};
      if (typing || !(event.key in moves)) return;
      event.preventDefault();
      moves[event.key]();
    }

    get speed() { return Number(this.speeds.value); }

    recolour() {
      const style = getComputedStyle(this.root);
      this.colours = Object.fromEntries(["ink", "paper", "line", "mark"].map(name =>
        [name, style.getPropertyValue("--" + name).trim()]));
      this.resize();
    }

    resize() {
      this.panels.forEach(panel => panel.resize());
      this.draw();
    }

    toggle() {
      this.playing = !this.playing;
      this.button.textContent = this.playing ? "Pause" : "Play";
      if (!this.playing) return;
      if (this.time >= this.end) this.time = 0;
      let before = performance.now();
      const frame = now => {
        if (!this.playing) return;
        this.frames = (this.frames || 0) + 1;
        this.time += (now - before) / 1000 * this.speed / this.network.tick;
        before = now;
        if (this.time >= this.end) { this.time = this.end; this.toggle(); }
        this.draw();
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    }

    step(ticks) { this.seek(Math.round(this.time) + ticks); }

    seek(time) {
      this.time = Math.min(Math.max(time, 0), this.end);
      this.draw();
    }

    draw() {
      this.slider.value = this.time;
      const seconds = t => (t * this.network.tick).toFixed(1);
      this.clock.textContent = `${seconds(this.time)} of ${seconds(this.end)} s`;
      this.panels.forEach(panel => panel.draw(this.time));
    }
  }

  async function start(root) {
    const {network, recordings} = JSON.parse(root.querySelector(".data").textContent);
    const episodes = [];
    for (const {arrays, ...about} of recordings) {
      const columns = {};
      for (const [name, parts] of Object.entries(arrays))
        columns[name] = await Promise.all(parts.map(unpack));
      restore(columns.events);
      episodes.push(new Episode(network, about, columns));
    }
    root.player = new Player(root, network, episodes);
    root.dataset.ready = "true";
  }

  for (const root of document.querySelectorAll(".replay")) start(root);
})();
"""
