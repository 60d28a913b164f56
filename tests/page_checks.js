// What page_checks.py asks a page: each function returns a list of complaints, or what
// Python needs to make them. Loaded into every page before its own scripts.
window.pageChecks = (() => {
  "use strict";
  const ARTICLE = ":is(.bd-article, .bd-search-container)";
  const within = selector => [...document.querySelectorAll(`${ARTICLE} :is(${selector})`)];
  const seen = element => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const short = text => text.trim().replace(/\s+/g, " ").slice(0, 50);
  const named = element => {
    const classes = [...element.classList].slice(0, 3).map(name => "." + name).join("");
    return element.tagName.toLowerCase() + (element.id ? "#" + element.id : "") + classes;
  };

  // Everything that a reader can unfold is unfolded, and nothing waits or moves.
  async function settle() {
    const style = document.createElement("style");
    style.textContent = "*, *::before, *::after { transition: none !important; animation: none !important; }";
    document.head.append(style);
    document.querySelectorAll("details").forEach(details => { details.open = true; });
    document.querySelectorAll(".toggle-hidden").forEach(box => box.classList.remove("toggle-hidden"));
    for (const image of document.images) image.loading = "eager";
    const everything = [
      window.MathJax && MathJax.startup && MathJax.startup.promise,
      document.fonts.ready,
      ...[...document.images].map(image => image.decode().catch(() => {})),
    ];
    // What is not there in time is left for the checks to find.
    await Promise.race([Promise.all(everything), new Promise(resolve => setTimeout(resolve, 20000))]);
  }

  // The text nodes of the article that stand in none of the given elements.
  function textNodes(outside) {
    const nodes = [];
    for (const article of document.querySelectorAll(ARTICLE)) {
      const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const node = walker.currentNode;
        if (node.data.trim() && !node.parentElement.closest(outside)) nodes.push(node);
      }
    }
    return nodes;
  }

  // MathJax draws a macro that it does not know as red text (noundefined).
  const TEX_ERROR = "[data-mml-node=merror], [data-mml-node=mtext][fill=red]";

  function badFormulas() {
    const typeset = window.MathJax && MathJax.startup ? [...MathJax.startup.document.math] : [];
    return [
      ...typeset.filter(item => item.typesetRoot && item.typesetRoot.querySelector(TEX_ERROR))
        .map(item => `TeX error in ${short(item.math)}`),
      ...within(".math").filter(span => !span.querySelector("mjx-container"))
        .map(span => `not typeset: ${short(span.textContent)}`),
      ...textNodes("pre, code, script, style, mjx-container, .math")
        .filter(node => /\\[([]|\$\$|\\begin\{|\$[^$]*\\[a-z]+[^$]*\$/i.test(node.data))
        .map(node => `TeX in prose: ${short(node.data)}`),
    ];
  }

  function sidewaysScroll() {
    const root = document.documentElement, width = root.clientWidth;
    if (root.scrollWidth <= width) return [];
    const scrolls = element => getComputedStyle(element).overflowX !== "visible";
    const inScrollBox = element => element !== document.body
      && (scrolls(element) || inScrollBox(element.parentElement));
    // A word that does not break sticks out of its box, which stays narrow.
    const reach = element => {
      const box = element.getBoundingClientRect();
      return Math.max(box.right, scrolls(element) ? 0 : box.left + element.scrollWidth) + window.scrollX;
    };
    const wide = [...document.body.querySelectorAll("*")].filter(element =>
      reach(element) > width + 0.5 && seen(element) && !inScrollBox(element.parentElement));
    const innermost = wide.filter(element => !wide.some(other => other !== element && element.contains(other)));
    return [`${root.scrollWidth} px wide in a window of ${width}: ${innermost.slice(0, 3).map(named).join(", ")}`];
  }

  function badImages() {
    return [...document.images].flatMap(image => [
      ...(image.complete && image.naturalWidth > 0 ? [] : [`does not load: ${image.src}`]),
      ...(image.alt.trim() ? [] : [`no alt text: ${image.src}`]),
    ]);
  }

  function badHeadings() {
    const headings = within("h1, h2, h3, h4, h5, h6").filter(seen);
    const level = heading => Number(heading.tagName[1]);
    const first = headings.filter(heading => level(heading) === 1);
    return [
      ...(first.length === 1 ? [] : [`${first.length} h1: ${first.map(h => short(h.textContent)).join(", ")}`]),
      ...headings.filter((heading, i) => level(heading) > (i ? level(headings[i - 1]) : 0) + 1)
        .map(heading => `${heading.tagName.toLowerCase()} skips a level: ${short(heading.textContent)}`),
    ];
  }

  const sheet = (width, height) => Object.assign(document.createElement("canvas"), { width, height })
    .getContext("2d", { willReadFrequently: true });

  // A canvas reads every notation of a color as [red, green, blue, alpha], 0 to 1.
  const dot = sheet(1, 1);
  const colors = new Map();
  function color(css) {
    if (!colors.has(css)) {
      dot.clearRect(0, 0, 1, 1);
      dot.fillStyle = css;
      dot.fillRect(0, 0, 1, 1);
      colors.set(css, [...dot.getImageData(0, 0, 1, 1).data].map(value => value / 255));
    }
    return colors.get(css);
  }
  const mix = (below, above, alpha) => [0, 1, 2].map(i => below[i] + (above[i] - below[i]) * alpha);
  const over = (below, above) => mix(below, above, above[3]);

  // WCAG 2.2: relative luminance and contrast ratio.
  function luminance(rgb) {
    const [r, g, b] = rgb.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function contrast(a, b) {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  }

  // What lies below an element's ink: the backgrounds of its ancestors on each other, and
  // its groups with an opacity, each of which is mixed into what lies below the group.
  function layers(element, known) {
    if (!element) return { ground: [1, 1, 1], groups: [] };
    if (!known.has(element)) {
      const { ground, groups } = layers(element.parentElement, known);
      const { opacity, backgroundColor } = getComputedStyle(element);
      known.set(element, {
        ground: over(ground, color(backgroundColor)),
        groups: opacity < 1 ? [[ground, Number(opacity)], ...groups] : groups,
      });
    }
    return known.get(element);
  }

  // The ink and the ground of an element as painted.
  function painted(element, known, ink = "black", inkOpacity = 1) {
    let { ground, groups } = layers(element, known);
    const [r, g, b, alpha] = color(ink);
    let text = over(ground, [r, g, b, alpha * inkOpacity]);
    for (const [below, opacity] of groups) {
      ground = mix(below, ground, opacity);
      text = mix(below, text, opacity);
    }
    return [text, ground];
  }

  // What is to be read: the element, the contrast that it needs, its paints, and a name.
  function inked() {
    const list = [];
    for (const node of textNodes("script, style, mjx-container")) {
      const element = node.parentElement, style = getComputedStyle(element);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      const ink = element instanceof SVGElement ? [style.fill, style.fillOpacity] : [style.color, 1];
      list.push([element, large ? 3 : 4.5, [ink], node.data]);
    }
    for (const part of within(`mjx-container [fill]:not(${TEX_ERROR})`)) {
      list.push([part, 4.5, [[getComputedStyle(part).fill, 1]], "formula"]);
    }
    for (const shape of within(".mamba-widget svg :is(path, line, circle, rect)")) {
      const style = getComputedStyle(shape);
      const inks = [[style.stroke, style.strokeOpacity]];
      if (shape.tagName !== "line") inks.push([style.fill, style.fillOpacity]);
      list.push([shape, 3, inks.filter(([paint]) => paint !== "none"), "drawing"]);
    }
    return list;
  }

  // A shape is seen when its outline or its filling is.
  function paleText() {
    const complaints = new Map(), known = new Map();
    const hex = rgb => "#" + rgb.map(v => Math.round(v * 255).toString(16).padStart(2, "0")).join("");
    for (const [element, needed, inks, text] of inked()) {
      if (!seen(element)) continue;
      const pairs = inks.map(ink => painted(element, known, ...ink));
      const ratios = pairs.map(([ink, ground]) => contrast(ink, ground));
      const ratio = Math.max(...ratios);
      if (ratio >= needed) continue;
      const [ink, ground] = pairs[ratios.indexOf(ratio)].map(hex);
      const what = `${named(element)}: ${ink} on ${ground} is ${ratio.toFixed(2)}, needs ${needed}`;
      if (!complaints.has(what)) complaints.set(what, `${what}: ${short(text)}`);
    }
    return [...complaints.values()];
  }

  // The pixels of a picture as the page shows them: on its own ground, then filtered.
  function shown(image) {
    const { naturalWidth: width, naturalHeight: height } = image;
    const style = getComputedStyle(image), [, ground] = painted(image.parentElement, new Map());
    const box = sheet(width, height), page = sheet(width, height);
    box.fillStyle = style.backgroundColor;
    box.fillRect(0, 0, width, height);
    box.drawImage(image, 0, 0);
    page.fillStyle = `rgb(${ground.map(v => v * 255).join(" ")})`;
    page.fillRect(0, 0, width, height);
    page.filter = style.filter;
    page.drawImage(box.canvas, 0, 0);
    return page.getImageData(0, 0, width, height).data;
  }

  // For each figure: how far each color of its file stands off the figure's margin.
  function figureInks(image) {
    const { naturalWidth: width, naturalHeight: height } = image;
    const file = sheet(width, height);
    file.drawImage(image, 0, 0);
    const source = file.getImageData(0, 0, width, height).data, page = shown(image);
    const pixel = i => [0, 1, 2].map(c => page[4 * i + c] / 255);
    const margin = [0, 0, 0];
    const counts = new Uint32Array(1 << 16), example = new Uint32Array(1 << 16);
    for (let i = 0; i < width * height; i++) {
      const x = i % width, y = (i - x) / width;
      if (x === 0 || y === 0 || x === width - 1 || y === height - 1) {
        pixel(i).forEach((v, c) => { margin[c] += v / (2 * (width + height) - 4); });
      }
      const rgba = [0, 1, 2, 3].reduce((key, c) => key << 4 | source[4 * i + c] >> 4, 0);
      counts[rgba]++;
      example[rgba] = i;
    }
    const inks = {};
    counts.forEach((count, rgba) => {
      if (count > 2e-4 * width * height) inks[rgba] = contrast(pixel(example[rgba]), margin);
    });
    return { name: image.alt || image.src, inks };
  }

  // What a slider sets: its value, the geometry of the drawing, and what is said of them.
  function slider(input) {
    const widget = input.closest(".mamba-widget");
    const shapes = widget.querySelectorAll("svg :is(path, line, circle, rect)");
    const geometry = ["d", "cx", "cy", "x", "y", "width", "height", "x1", "y1", "x2", "y2"];
    const words = widget.querySelectorAll("output, .mamba-widget-caption");
    return {
      label: (input.labels[0]?.textContent || input.ariaLabel || "").trim(),
      focused: input === document.activeElement,
      atEnd: Number(input.value) >= Number(input.max),
      state: {
        value: input.value,
        drawing: [...shapes].map(shape => geometry.map(name => shape.getAttribute(name)).join()).join(";"),
        output: [...words].map(element => element.textContent).join(";"),
      },
    };
  }

  // Where the results of search.html?q=... lead, when the search has ended, or in ten seconds.
  async function searchResults() {
    const ended = () => document.querySelector("#search-results .search-summary")?.textContent.trim();
    for (let i = 0; i < 100 && !ended(); i++) await new Promise(resolve => setTimeout(resolve, 100));
    return [...document.querySelectorAll("#search-results li a")].map(link => link.href);
  }

  const figures = () => within("img").filter(image => image.naturalWidth > 0).map(figureInks);
  const links = () => [...new Set([...document.querySelectorAll("a[href]")].map(link => link.href))];
  const theme = mode => { Object.assign(document.documentElement.dataset, { theme: mode, mode }); };

  return {
    settle, badFormulas, sidewaysScroll, badImages, badHeadings, paleText, figures, slider,
    searchResults, links, theme,
  };
})();
