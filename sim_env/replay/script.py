"""The player of replays: JavaScript as text, because a FAB holds no such files."""

from sim_env.replay.episode import EPISODE

PLAYER = r"""  class Panel {
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
SCRIPT = EPISODE + "\n" + PLAYER
