(() => {
  "use strict";
  const root = document.documentElement;
  const night = matchMedia("(prefers-color-scheme: dark)");
  const swaps = JSON.parse(document.getElementById("dark").textContent);
  const blocks = [...document.querySelectorAll("script.figure-data")];
  const PAPER_PX = 660; // an A4 page between its margins, a letter page and a little
  const coarse = matchMedia("(pointer: coarse)").matches;

  const recolor = (value) => {
    if (typeof value === "string") return Object.hasOwn(swaps, value) ? swaps[value] : value;
    if (Array.isArray(value)) return value.map(recolor);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, recolor(one)]));
  };

  // names of rows above their marks: beside them they would leave no room
  const narrow = ({ layout }) => {
    const { tickvals, ticktext } = layout.yaxis;
    const step = ticktext.some((text) => text.includes("<br>")) ? 76 : 56;
    layout.annotations = tickvals.map((y, row) => ({
      text: ticktext[row], xref: "paper", x: 0, xanchor: "left", y, yanchor: "bottom", yshift: step / 4, align: "left", showarrow: false,
    }));
    Object.assign(layout.yaxis, { showticklabels: false, range: [tickvals.length - 0.5, -0.8] });
    Object.assign(layout, { height: 60 + step * tickvals.length, margin: { ...layout.margin, l: 8 } });
  };

  const draw = async (block, dark) => {
    const place = block.parentElement.querySelector(".plot");
    const config = { displayModeBar: false, displaylogo: false, responsive: true };
    const words = place.querySelector(".fallback");
    if (words) words.hidden = true;
    try {
      let spec = JSON.parse(block.textContent);
      if (dark) spec = recolor(spec);
      spec.layout.dragmode = coarse ? false : "zoom";
      if (place.clientWidth < 520 && spec.layout.yaxis?.ticktext) narrow(spec);
      await window.Plotly.react(place, spec.data, spec.layout, config);
      return true;
    } catch (error) {
      if (words) { words.hidden = false; place.append(words); }
      return false;
    }
  };

  // paper is narrower than most windows, and is not waited for
  const refit = (width) => {
    for (const place of document.querySelectorAll(".js-plotly-plot"))
      window.Plotly.relayout(place, width ? { width } : { width: null, autosize: true });
  };

  // between figures the page is shown and answers; paper does not wait
  const drawAll = async (dark, isPaper = false) => {
    let drawn = 0;
    for (const block of blocks) {
      if (await draw(block, dark)) drawn += 1;
      root.dataset.firstFigureMs ??= String(Math.round(performance.now()));
      if (!isPaper) await new Promise((resolve) => setTimeout(resolve));
    }
    root.dataset.figuresDrawn = String(drawn);
    root.dataset.figuresReady = drawn === Number(root.dataset.figures) ? "all" : "some";
  };

  night.addEventListener("change", () => drawAll(night.matches));
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details")) one.open = true;
    if (night.matches) drawAll(false, true);
    refit(PAPER_PX);
  });
  addEventListener("afterprint", () => {
    if (night.matches) drawAll(true);
    refit();
  });
  drawAll(night.matches);
})();
