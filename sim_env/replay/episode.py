"""The first part of the player: a recording, prepared so that any moment can be drawn at once."""

EPISODE = r"""
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
"""
