// Figures with sliders that need no kernel: <div class="mamba-widget" data-kind="rules"></div>.
// Each kind has sliders and a function draw(values, plot) that is called when one moves.
(function () {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const BLUE = "var(--mamba-blue)", ORANGE = "var(--mamba-orange)"; // mamba.css: dark mode has its own
  const GREEN = "var(--mamba-green)", GRAY = "var(--mamba-gray)";

  function element(name, attributes, parent) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(node);
    return node;
  }

  // A plot area: data coordinates in xRange and yRange, drawn into a box of the picture.
  function axes(svg, box, xRange, yRange, xLabel, yLabel) {
    const x = v => box.x + (v - xRange[0]) / (xRange[1] - xRange[0]) * box.width;
    const y = v => box.y + box.height - (v - yRange[0]) / (yRange[1] - yRange[0]) * box.height;
    const inside = v => Math.max(yRange[0], Math.min(yRange[1], v));
    const line = (x1, y1, x2, y2, attributes) =>
      element("line", { x1: x(x1), y1: y(y1), x2: x(x2), y2: y(y2), stroke: "currentColor", ...attributes }, svg);
    const text = (px, py, content, anchor) => {
      const node = element("text", { x: px, y: py, "text-anchor": anchor || "middle", "font-size": 13, fill: "currentColor" }, svg);
      node.textContent = content;
    };
    line(xRange[0], yRange[0], xRange[0], yRange[1]);
    line(xRange[0], Math.max(0, yRange[0]), xRange[1], Math.max(0, yRange[0]));
    text(x(xRange[1]), box.y + box.height + 18, xLabel, "end");
    text(box.x, box.y - 8, yLabel, "start");
    for (const v of [yRange[0], yRange[1]]) text(box.x - 6, y(v) + 4, String(v), "end");
    text(x(xRange[0]), box.y + box.height + 18, String(xRange[0]));
    return {
      x, y, line, text,
      curve(f, attributes) {
        let d = "";
        for (let i = 0; i <= 240; i++) {
          const v = xRange[0] + (xRange[1] - xRange[0]) * i / 240;
          d += (i ? "L" : "M") + x(v).toFixed(1) + " " + y(inside(f(v))).toFixed(1);
        }
        element("path", { d, fill: "none", "stroke-width": 2, ...attributes }, svg);
      },
      points(list, color, shape) {
        for (const [a, b] of list) {
          if (b < yRange[0] || b > yRange[1] || a > xRange[1]) continue;
          if (shape === "cross") {
            const s = 5, d = `M${x(a) - s} ${y(b) - s}l${2 * s} ${2 * s}M${x(a) - s} ${y(b) + s}l${2 * s} ${-2 * s}`;
            element("path", { d, stroke: color, "stroke-width": 2 }, svg);
          } else if (shape === "square") {
            element("rect", { x: x(a) - 4, y: y(b) - 4, width: 8, height: 8, fill: color }, svg);
          } else {
            element("circle", { cx: x(a), cy: y(b), r: 4.5, fill: color }, svg);
          }
        }
      },
      bar(position, value, width, attributes) {
        const top = Math.min(y(value), y(0));
        element("rect", { x: x(position) - width / 2, y: top, width, height: Math.abs(y(value) - y(0)), ...attributes }, svg);
      },
    };
  }

  // The impulse response of a unit mass, and the poles of s^2 + c s + k.
  function springPoles(c, k) {
    const discriminant = c * c / 4 - k;
    const root = Math.sqrt(Math.abs(discriminant));
    return discriminant < 0
      ? [[-c / 2, root], [-c / 2, -root]]
      : [[-c / 2 + root, 0], [-c / 2 - root, 0]];
  }
  function springResponse(c, k, t) {
    const [[sigma, omega], [other]] = springPoles(c, k);
    if (omega > 1e-6) return Math.exp(sigma * t) * Math.sin(omega * t) / omega;
    if (Math.abs(sigma - other) < 1e-6) return t * Math.exp(sigma * t);
    return (Math.exp(sigma * t) - Math.exp(other * t)) / (sigma - other);
  }

  const kinds = {
    spring: {
      title: "Impulse response and poles of a mass on a spring",
      height: 250,
      sliders: [
        { label: "damping c (kg/s)", min: 0, max: 6, step: 0.1, value: 0.5 },
        { label: "stiffness k (kg/s²)", min: 0.5, max: 9, step: 0.1, value: 4 },
      ],
      draw(svg, [c, k]) {
        const plot = axes(svg, { x: 40, y: 30, width: 300, height: 180 }, [0, 12], [-1, 1], "time (s)", "position (m)");
        plot.curve(t => springResponse(c, k, t), { stroke: BLUE });
        const map = axes(svg, { x: 400, y: 30, width: 150, height: 180 }, [-6, 1], [-3, 3], "real (1/s)", "imaginary (1/s)");
        map.line(0, -3, 0, 3, { "stroke-dasharray": "4 3" });
        map.points(springPoles(c, k), ORANGE, "cross");
        const discriminant = c * c / 4 - k;
        return c === 0 ? "swings for ever" : discriminant < -1e-9 ? "swings and fades" : discriminant > 1e-9 ? "creeps back" : "returns fastest";
      },
    },
    kernel: {
      title: "A kernel, and the response to three taps",
      height: 270,
      sliders: [
        { label: "size of the multiplier", min: 0.5, max: 1, step: 0.01, value: 0.92 },
        { label: "its rotation a step (degrees)", min: 0, max: 90, step: 1, value: 22 },
      ],
      draw(svg, [size, degrees]) {
        const K = k => (k < 0 ? 0 : Math.pow(size, k) * Math.cos(k * degrees * Math.PI / 180));
        const left = axes(svg, { x: 40, y: 30, width: 200, height: 190 }, [0, 40], [-1, 1], "k", "kernel");
        for (let k = 0; k <= 40; k++) left.bar(k, K(k), 3, { fill: BLUE });
        const right = axes(svg, { x: 300, y: 30, width: 250, height: 190 }, [0, 60], [-2, 2], "step", "taps (bars), output");
        const taps = [[5, 1], [18, 0.5], [26, -0.8]];
        for (const [at, strength] of taps) right.bar(at, strength, 5, { fill: ORANGE });
        const y = t => taps.reduce((sum, [at, strength]) => sum + strength * K(Math.round(t) - at), 0);
        const between = t => y(Math.floor(t)) + (t % 1) * (y(Math.floor(t) + 1) - y(Math.floor(t)));
        right.curve(between, { stroke: BLUE });
        const half = size < 1 ? (Math.log(0.5) / Math.log(size)).toFixed(1) : "∞";
        return `an input has lost half of its weight after ${half} steps`;
      },
    },
    hippo: {
      title: "A history, and what a state of N numbers can reproduce of it",
      height: 250,
      sliders: [
        { label: "time gone by (steps)", min: 100, max: 1000, step: 50, value: 600 },
        { label: "numbers of state N", min: 2, max: 40, step: 1, value: 24 },
      ],
      draw(svg, [now, N]) {
        const signal = t => (Math.sin(0.011 * t) + Math.sin(0.029 * t + 1) + Math.sin(0.053 * t + 4) + Math.sin(0.071 * t + 2)) / 4;
        const legendre = u => { // P_0(u) .. P_{N-1}(u)
          const P = [1, u];
          for (let n = 1; n + 1 < N; n++) P.push(((2 * n + 1) * u * P[n] - n * P[n - 1]) / (n + 1));
          return P.slice(0, N);
        };
        const h = new Array(N).fill(0), points = 800;
        for (let i = 0; i < points; i++) {
          const u = -1 + (2 * i + 1) / points;
          legendre(u).forEach((p, n) => { h[n] += (2 * n + 1) * p * signal((u + 1) * now / 2) / points; });
        }
        const recalled = t => legendre(2 * t / now - 1).reduce((sum, p, n) => sum + h[n] * p, 0);
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 180 }, [0, 1000], [-1, 1], "step", "signal (gray) and recalled history (blue)");
        plot.curve(signal, { stroke: GRAY, "stroke-width": 5 });
        let d = "";
        for (let i = 0; i <= 300; i++) d += (i ? "L" : "M") + plot.x(now * i / 300).toFixed(1) + " " + plot.y(Math.max(-1, Math.min(1, recalled(now * i / 300)))).toFixed(1);
        element("path", { d, fill: "none", stroke: BLUE, "stroke-width": 2 }, svg);
        plot.line(now, -1, now, 1, { stroke: ORANGE, "stroke-dasharray": "4 3" });
        let missed = 0, all = 0;
        for (let i = 0; i < 300; i++) {
          const t = now * (i + 0.5) / 300;
          missed += (signal(t) - recalled(t)) ** 2;
          all += signal(t) ** 2;
        }
        return `of the history up to step ${now}, ${(100 * Math.sqrt(missed / all)).toFixed(0)} % is missed; N / π = ${(N / Math.PI).toFixed(1)} periods`;
      },
    },
    whisper: {
      title: "What is left of a word after so many steps",
      height: 250,
      sliders: [
        { label: "factor of a plain recurrence", min: 0.8, max: 1.2, step: 0.01, value: 0.9 },
        { label: "bias of a forget gate", min: -2, max: 7, step: 0.1, value: 4 },
      ],
      draw(svg, [factor, bias]) {
        const gate = 1 / (1 + Math.exp(-bias));
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 180 }, [0, 100], [-8, 8], "steps", "what is left of 1, powers of ten: plain (orange), gate (blue)");
        plot.curve(t => t * Math.log10(factor), { stroke: ORANGE });
        plot.curve(t => t * Math.log10(gate), { stroke: BLUE });
        const left = value => value >= 0.001 && value < 1e4 ? value.toFixed(3) : value.toExponential(0);
        return `the gate is open by ${gate.toFixed(4)}; after 100 steps ${left(Math.pow(gate, 100))} is left, and ${left(Math.pow(factor, 100))} of the plain one; the gate halves a word in ${(Math.log(0.5) / Math.log(gate)).toFixed(0)} steps`;
      },
    },
    rules: {
      title: "A thermometer carried into a warm room, followed by three rules",
      height: 270,
      sliders: [{ label: "step size Δ (min)", min: 0.1, max: 3, step: 0.05, value: 0.5 }],
      draw(svg, [delta]) {
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 200 }, [0, 9], [-1, 3], "time (min)", "thermometer");
        plot.curve(t => 1 - Math.exp(-t), { stroke: GRAY });
        const follow = (keep, write) => {
          const list = [[0, 0]];
          for (let n = 1, h = 0; n * delta <= 9; n++) { h = keep * h + write; list.push([n * delta, h]); }
          return list;
        };
        plot.points(follow(1 - delta, delta), ORANGE, "square");
        plot.points(follow((1 - delta / 2) / (1 + delta / 2), delta / (1 + delta / 2)), GREEN, "cross");
        plot.points(follow(Math.exp(-delta), 1 - Math.exp(-delta)), BLUE);
        plot.text(540, 50, "■ Euler   × bilinear   ● zero-order hold", "end");
        const state = delta > 2 ? "explodes" : delta > 1 ? "rings" : "is stable";
        return `Euler's multiplier is ${(1 - delta).toFixed(2)}: it ${state}. Zero-order hold: ${Math.exp(-delta).toFixed(2)}.`;
      },
    },
    gate: {
      title: "The state before and after one token, as a mixture set by Delta",
      height: 220,
      sliders: [
        { label: "Δ at the marked token", min: 0, max: 6, step: 0.05, value: 0.2 },
        { label: "Δ at all the others", min: 0, max: 0.5, step: 0.01, value: 0.02 },
      ],
      draw(svg, [marked, others]) {
        const input = [0.2, -0.5, 0.4, -0.1, 0.3, 2, -0.4, 0.5, -0.6, 0.2, 0.1, -0.3, 0.6, -0.2, 0.3, -0.5];
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 150 }, [0, 17], [-1, 2.2], "token", "input (bars) and state (dots)");
        const states = [];
        input.reduce((h, x, i) => {
          const keep = Math.exp(-(i === 5 ? marked : others));
          const color = i === 5 ? ORANGE : GRAY;
          plot.bar(i + 1, x, 14, { fill: color, "fill-opacity": 0.4, stroke: color });
          const next = keep * h + (1 - keep) * x;
          states.push([i + 1, next]);
          return next;
        }, 0);
        plot.points(states, BLUE);
        return `the marked token keeps ${Math.exp(-marked).toFixed(2)} of the state and writes ${(1 - Math.exp(-marked)).toFixed(2)} of the input`;
      },
    },
    select: {
      title: "A state that hears symbols and noise, with one step size for each",
      height: 230,
      sliders: [
        { label: "Δ at the symbols", min: 0, max: 6, step: 0.05, value: 0.3 },
        { label: "Δ in the noise", min: 0, max: 1, step: 0.01, value: 0.3 },
      ],
      draw(svg, [atSymbols, inNoise]) {
        const symbols = { 2: 2, 5: -1.5, 8: 1, 24: -2, 27: 1.5 }; // place -> value
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 160 }, [0, 34], [-2.2, 2.2], "position", "input (bars) and state (dots)");
        const states = [];
        let h = 0, wrong = 0, last = 0;
        for (let i = 1; i <= 33; i++) {
          const heard = symbols[i] !== undefined;
          if (heard) last = symbols[i];
          const x = heard ? last : 0.8 * Math.sin(12.9 * i * i); // noise, the same each time
          const keep = Math.exp(-(heard ? atSymbols : inNoise));
          plot.bar(i, x, 8, { fill: heard ? ORANGE : GRAY, "fill-opacity": 0.4, stroke: heard ? ORANGE : GRAY });
          h = keep * h + (1 - keep) * x;
          if (i > 1) wrong += Math.abs(h - last) / 32;
          states.push([i, h]);
        }
        plot.points(states, BLUE);
        return `mean distance between the state and the last symbol: ${wrong.toFixed(2)}; after 15 tokens of noise ${(100 * Math.exp(-15 * inNoise)).toFixed(0)} % of a symbol is left`;
      },
    },
    chunk: {
      title: "States in memory, against the steps between two kept ones",
      height: 260,
      sliders: [
        { label: "length L, a power of 2", min: 6, max: 16, step: 1, value: 10 },
        { label: "steps K, a power of 2", min: 0, max: 16, step: 1, value: 4 },
      ],
      draw(svg, [power, chosen]) {
        const L = Math.pow(2, power), k = Math.min(chosen, power);
        const states = exponent => L / Math.pow(2, exponent) + Math.pow(2, exponent);
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 190 }, [0, power], [0, power + 1], "log2 of K", "log2 of the states in memory");
        plot.curve(v => Math.log2(states(v)), { stroke: BLUE });
        plot.line(0, power, power, power, { stroke: GRAY, "stroke-dasharray": "4 3" });
        plot.points([[k, Math.log2(states(k))]], ORANGE);
        return `L = ${L}, K = ${Math.pow(2, k)}: ${Math.round(states(k))} states in memory; without recomputing ${L} (dashed)`;
      },
    },
    scan: {
      title: "Which elements each place has joined, round by round",
      height: 290,
      sliders: [
        { label: "1 doubling, 2 halving", min: 1, max: 2, step: 1, value: 1 },
        { label: "length L", min: 1, max: 16, step: 1, value: 11 },
        { label: "round", min: 0, max: 7, step: 1, value: 2 },
      ],
      draw(svg, [algorithm, L, chosen]) {
        const rounds = []; // lists of [source, place]: the place takes in what the source has
        const halve = places => { // Blelloch, as the package's recursion
          if (places.length === 1) return;
          const odd = places.filter((_, i) => i % 2), even = places.filter((_, i) => i % 2 === 0);
          rounds.push(odd.map((place, i) => [even[i], place]));
          halve(odd);
          if (places.length > 2) rounds.push(even.slice(1).map((place, i) => [odd[i], place]));
        };
        if (algorithm === 2) halve([...Array(L).keys()]);
        else for (let reach = 1; reach < L; reach *= 2) rounds.push([...Array(L - reach).keys()].map(i => [i, i + reach]));
        const round = Math.min(chosen, rounds.length);
        let begin = [...Array(L).keys()], work = 0;
        const taken = new Map(); // of the last round: place -> where its own part began
        rounds.slice(0, round).forEach((joins, number) => {
          const before = begin.slice();
          for (const [source, place] of joins) {
            begin[place] = before[source];
            if (number === round - 1) taken.set(place, before[place]);
          }
          work += joins.length;
        });
        const plot = axes(svg, { x: 40, y: 30, width: 500, height: 215 }, [0, L], [0, L], "element", "place");
        const bar = (from, to, place, color) => element("rect", {
          x: plot.x(from) + 1, y: plot.y(place + 1) + 1, width: plot.x(to) - plot.x(from) - 2,
          height: plot.y(0) - plot.y(1) - 2, fill: color,
        }, svg);
        begin.forEach((from, place) => {
          const own = taken.has(place) ? taken.get(place) : from;
          if (own > from) bar(from, own, place, ORANGE);
          bar(own, place + 1, place, from === 0 ? BLUE : GRAY);
        });
        const done = begin.filter(from => from === 0).length, now = round ? rounds[round - 1].length : 0;
        return `round ${round} of ${rounds.length}: ${now} joins at once (orange: what was taken in), ${work} so far; ${done} of ${L} places done (blue)`;
      },
    },
    count: {
      title: "How the parameters of a block are divided",
      height: 250,
      sliders: [
        { label: "width of the model E", min: 64, max: 2560, step: 64, value: 768 },
        { label: "numbers of state N", min: 4, max: 128, step: 4, value: 16 },
      ],
      draw(svg, [E, N]) {
        const D = 2 * E, R = Math.ceil(E / 16), K = 4;
        const parts = [
          ["in_proj", E * 2 * D], ["out_proj", D * E], ["x_proj", D * (R + 2 * N)],
          ["dt_proj", R * D + D], ["A_log, D", D * N + D], ["conv", K * D + D], ["norm", E],
        ];
        const total = parts.reduce((sum, [, size]) => sum + size, 0);
        const plot = axes(svg, { x: 50, y: 30, width: 490, height: 170 }, [0, 7], [0, 100], "", "share (%)");
        parts.forEach(([name, size], i) => {
          plot.bar(i + 0.5, 100 * size / total, 40, { fill: i < 2 ? BLUE : ORANGE });
          plot.text(plot.x(i + 0.5), plot.y(0) + 18, name);
          plot.text(plot.x(i + 0.5), plot.y(100 * size / total) - 6, (100 * size / total).toFixed(1));
        });
        return `${total.toLocaleString("en-US")} parameters a block`;
      },
    },
    sampling: {
      title: "What temperature and top_p leave of a distribution",
      height: 250,
      sliders: [
        { label: "temperature", min: 0.1, max: 2, step: 0.05, value: 1 },
        { label: "top_p", min: 0.05, max: 1, step: 0.05, value: 1 },
      ],
      draw(svg, [temperature, p]) {
        const letters = ["a", "e", "h", "o", "t", "p", "u", "i", "l", "w"];
        const scores = [2.9, 2.3, 1.9, 1.7, 1.2, 0.9, 0.4, 0.1, -0.8, -1.2];
        const softmax = s => {
          const e = s.map(v => Math.exp(v)), sum = e.reduce((a, b) => a + b, 0);
          return e.map(v => v / sum);
        };
        const before = softmax(scores), bent = softmax(scores.map(v => v / temperature));
        let sum = 0;
        const kept = bent.map(v => { const stays = sum < p - 1e-12; sum += v; return stays ? v : 0; });
        const rest = kept.reduce((a, b) => a + b, 0), count = kept.filter(v => v > 0).length;
        const plot = axes(svg, { x: 50, y: 30, width: 490, height: 170 }, [0, 10], [0, 1], "", "probability: before (gray), after (blue)");
        letters.forEach((letter, i) => {
          plot.bar(i + 0.4, before[i], 16, { fill: GRAY });
          plot.bar(i + 0.7, kept[i] / rest, 16, { fill: BLUE });
          plot.text(plot.x(i + 0.55), plot.y(0) + 18, letter);
        });
        return `${count} of 10 letters can still be drawn; the likeliest has ${(100 * kept[0] / rest).toFixed(0)} %`;
      },
    },
    memory: {
      title: "Memory of weights, of states, and of a Transformer's cache",
      height: 230,
      sliders: [
        { label: "model, 130m to 2.8b", min: 1, max: 5, step: 1, value: 1 },
        { label: "bytes of a number", min: 1, max: 4, step: 1, value: 4 },
        { label: "texts at once", min: 1, max: 64, step: 1, value: 1 },
        { label: "thousands of tokens in each", min: 1, max: 128, step: 1, value: 32 },
      ],
      draw(svg, [model, size, texts, tokens]) {
        const [name, E, layers] = [["130m", 768, 24], ["370m", 1024, 48], ["790m", 1536, 48], ["1.4b", 2048, 48], ["2.8b", 2560, 64]][model - 1];
        const D = 2 * E, R = Math.ceil(E / 16);
        const block = E * 2 * D + D * E + D * (R + 32) + R * D + D + D * 17 + 5 * D + E;
        const MB = 1e6, bars = [
          ["weights", (layers * block + E + 50280 * E) * size / MB, BLUE],
          ["states", texts * layers * D * 19 * 4 / MB, GREEN],
          ["cache of a Transformer", texts * tokens * 1000 * layers / 2 * 2 * E * size / MB, ORANGE],
        ];
        const plot = axes(svg, { x: 50, y: 30, width: 490, height: 150 }, [0, 3], [0, 8], "", "MB, powers of ten");
        bars.forEach(([label, value, fill], i) => {
          const height = Math.log10(Math.max(value, 1));
          plot.bar(i + 0.5, height, 90, { fill });
          plot.text(plot.x(i + 0.5), plot.y(0) + 18, label);
          plot.text(plot.x(i + 0.5), plot.y(height) - 6, value < 1000 ? value.toFixed(0) + " MB" : (value / 1000).toFixed(1) + " GB");
        });
        return `${name}: ${texts} text${texts > 1 ? "s" : ""} of ${tokens},000 tokens. States stay float32; a Transformer of the same size has half as many layers.`;
      },
    },
  };

  let count = 0;
  function build(div) {
    const kind = kinds[div.dataset.kind];
    if (!kind) return;
    div.textContent = "";
    const controls = document.createElement("div");
    controls.className = "mamba-widget-controls";
    const inputs = kind.sliders.map(slider => {
      const id = `mamba-slider-${count++}`;
      const label = document.createElement("label");
      const input = document.createElement("input");
      const value = document.createElement("output");
      label.htmlFor = value.htmlFor = input.id = id;
      label.textContent = slider.label + " ";
      Object.assign(input, { type: "range", min: slider.min, max: slider.max, step: slider.step });
      input.value = slider.value;
      const row = document.createElement("div");
      row.append(label, input, value);
      controls.append(row);
      return { input, value };
    });
    const svg = element("svg", { viewBox: `0 0 560 ${kind.height}`, role: "img", "aria-label": kind.title });
    const caption = document.createElement("p");
    caption.className = "mamba-widget-caption";
    caption.setAttribute("aria-live", "polite");
    div.append(controls, svg, caption);
    const draw = () => {
      svg.textContent = "";
      const values = inputs.map(({ input, value }) => {
        value.textContent = Number(input.value).toFixed(input.step >= 1 ? 0 : 2);
        return Number(input.value);
      });
      caption.textContent = kind.draw(svg, values);
    };
    inputs.forEach(({ input }) => input.addEventListener("input", draw));
    draw();
  }

  const start = () => document.querySelectorAll(".mamba-widget").forEach(build);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
