(() => {
  "use strict";
  const collator = new Intl.Collator("en", { numeric: true });

  const sorter = (body, rows, heads) => (chosen, direction) => {
    const at = heads.indexOf(chosen);
    const key = (row) => row.cells[at].dataset.key;
    const byNumber = "number" in chosen.dataset;
    const compare = (one, other) =>
      byNumber ? Number(key(one)) - Number(key(other)) : collator.compare(key(one), key(other));
    const sign = direction === "descending" ? -1 : 1;
    // rows in their first order: what is equal stays by rank
    const sorted = direction ? [...rows].sort((one, other) => sign * compare(one, other)) : rows;
    body.append(...sorted);
    for (const head of heads) head.removeAttribute("aria-sort");
    if (direction) chosen.setAttribute("aria-sort", direction);
  };

  for (const place of document.querySelectorAll(".sortable")) {
    const body = place.querySelector("tbody");
    const rows = [...body.rows];
    const heads = [...place.querySelectorAll("thead th")];
    const sort = sorter(body, rows, heads);
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const turns = "number" in head.dataset ? ["descending", "ascending"] : ["ascending", "descending"];
      // a third press brings the first order back
      button.addEventListener("click", () => sort(head, turns[turns.indexOf(head.getAttribute("aria-sort")) + 1]));
    }

    const filter = place.querySelector(".filter");
    const input = filter.querySelector("input");
    const told = filter.querySelector("output");
    const hint = told.textContent;
    const texts = rows.map((row) => row.textContent.toLowerCase());
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, at) => {
        row.hidden = !wanted.every((word) => texts[at].includes(word));
        if (!row.hidden) shown += 1;
      });
      told.textContent = wanted.length ? `${shown} of ${rows.length} shown.` : hint;
    });
    filter.hidden = false;
  }
})();
