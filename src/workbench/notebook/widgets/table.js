const ROW = 28;
const LEAST = 3;
const TALLEST = 8e6; // browsers cut elements that are much taller
const KEPT_PAGES = 40;
let tables = 0;

function make(tag, attributes, parent) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent?.append(node);
  return node;
}

export default {
  render({ model, el }) {
    const id = `wb-table-${++tables}`;
    const heads = model.get("heads");
    const widths = model.get("widths") ?? [];
    const most = model.get("height");
    const size = model.get("page_size");
    const pressable = model.get("actions") ?? {}; // key → what it does to the row one is at
    const noteKey = model.get("note_key") ?? "";
    const follows = Object.keys(pressable).length > 0; // such a table opens each row one comes to
    const bar = make("div", { class: "wb-bar" }, el);
    const name = make("label", {}, bar);
    name.textContent = "Filter ";
    const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" }, name);
    const status = make("output", { "aria-live": "polite" }, bar);
    const buttons = follows ? make("div", { class: "wb-bar", role: "group", "aria-label": "Actions" }, el) : null;
    let note = null;
    if (noteKey) {
      const named = make("label", {}, buttons);
      named.textContent = "Note ";
      note = make("input", { type: "text", autocomplete: "off", maxlength: "4000" }, named);
      note.addEventListener("keydown", (event) => {
        event.stopPropagation();
        if (event.key === "Enter") press(noteKey);
        if (event.key === "Escape") grid.focus();
      });
    }
    for (const [key, text] of Object.entries(pressable)) {
      const button = make("button", { type: "button", "aria-keyshortcuts": key }, buttons);
      button.textContent = `${text} (${key})`;
      button.addEventListener("click", () => (key === noteKey && !note.value ? note.focus() : press(key)));
    }
    const grid = make("div", {
      class: "wb-grid", role: "grid", tabindex: "0", "aria-label": model.get("label"),
      "aria-colcount": heads.length, "aria-multiselectable": !follows,
      "aria-description": follows
        ? "Arrows, j and k move, Home and End go to the first and last row, Enter goes to the next; the buttons name the other keys"
        : "Arrows move, Home and End go to the first and last row, space chooses, Enter opens",
    }, el);
    const wide = (cell, at) => {
      const share = widths[at] ?? 1;
      cell.style.flexGrow = share;
      cell.style.minWidth = `${3 * share}rem`;
      return cell;
    };
    const layer = make("div", { role: "rowgroup" }, grid);
    const spacer = make("div", { "aria-hidden": "true" }, grid);
    const header = make("div", { role: "row", "aria-rowindex": 1 }, layer);
    const columns = heads.map((head, at) => {
      const cell = wide(make("div", { role: "columnheader", title: head, "aria-colindex": at + 1, "aria-sort": "none" }, header), at);
      const button = make("button", { type: "button" }, cell);
      button.textContent = head;
      button.addEventListener("click", () => sortBy(at));
      return cell;
    });
    const rows = Array.from({ length: most }, (_, at) => {
      const row = make("div", { role: "row" }, layer);
      row.addEventListener("click", (event) => {
        const cell = event.target.closest("[role=gridcell]");
        if (cell) { row_ = first + at; column = Number(cell.dataset.column); move(row_); if (!follows) choose(); }
      });
      row.addEventListener("dblclick", () => act("open"));
      return { row, cells: heads.map((_, c) => wide(make("div", { role: "gridcell", "data-column": c, "aria-colindex": c + 1 }, row), c)) };
    });

    let shownRows = most, count = 0, first = 0, row_ = 0, column = 0, sort = -1, descending = false, words = "", turn = 0, following = 0;
    let pages = new Map(), marks = new Map(), asked = new Set(), chosen = new Set();

    const last = () => Math.max(0, count - shownRows);
    const ask = (page) => {
      if (asked.has(page)) return;
      asked.add(page);
      model.send({ id: turn, page, sort, descending, filter: words });
    };
    const again = () => { turn += 1; asked = new Set(); chosen = new Set(); draw(); };
    const restart = () => { pages = new Map(); marks = new Map(); row_ = 0; first = 0; grid.scrollTop = 0; again(); };
    const sortBy = (at) => {
      descending = sort === at && !descending;
      sort = at;
      columns.forEach((cell, c) => cell.setAttribute("aria-sort", c !== at ? "none" : descending ? "descending" : "ascending"));
      restart();
    };
    function draw() {
      grid.setAttribute("aria-rowcount", count + 1);
      const from = Math.floor(first / size), to = Math.floor((first + shownRows - 1) / size);
      for (let page = from; page <= to; page += 1) if (page === 0 || page * size < count) ask(page);
      rows.forEach(({ row, cells }, at) => {
        const index = first + at;
        const texts = pages.get(Math.floor(index / size))?.[index % size];
        row.style.display = index < count ? "" : "none";
        row.setAttribute("aria-rowindex", index + 2);
        row.setAttribute("aria-selected", chosen.has(index));
        cells.forEach((cell, c) => {
          cell.id = `${id}-${index}-${c}`;
          cell.textContent = texts ? texts[c] : "…"; // text only: it may be hostile
          cell.title = texts && texts[c].length > 20 ? texts[c] : "";
          cell.classList.toggle("wb-active", index === row_ && c === column);
        });
      });
      if (count) grid.setAttribute("aria-activedescendant", `${id}-${row_}-${column}`);
      const end = Math.min(first + shownRows, count);
      status.textContent = count ? `${(first + 1).toLocaleString("en")}–${end.toLocaleString("en")} of ${count.toLocaleString("en")} rows` : "no rows";
    }
    function resize() { // a short list leaves no empty rows
      shownRows = Math.min(most, Math.max(count, LEAST));
      grid.style.height = `${(shownRows + 1) * ROW + 2}px`;
      const height = Math.min(count * ROW, TALLEST);
      spacer.style.height = `${Math.max(0, height - shownRows * ROW)}px`;
    }
    function scrollTo(at) {
      first = Math.min(Math.max(at, 0), last());
      const room = grid.scrollHeight - grid.clientHeight;
      grid.dataset.first = first;
      grid.scrollTop = last() ? Math.round((first / last()) * room) : 0;
      draw();
    }
    function move(to) {
      row_ = Math.min(Math.max(to, 0), Math.max(0, count - 1));
      if (row_ < first) scrollTo(row_);
      else if (row_ >= first + shownRows) scrollTo(row_ - shownRows + 1);
      else draw();
      follow();
    }
    // what one means is the row that one sees: rows may have moved meanwhile
    const mark = () => marks.get(Math.floor(row_ / size))?.[row_ % size] ?? "";
    function act(what) {
      if (mark()) model.send({ [what]: row_, mark: mark(), sort, descending, filter: words });
    }
    function follow() {
      clearTimeout(following);
      if (follows) following = setTimeout(() => act("open"), 120);
    }
    function press(key) {
      model.send({ press: row_, key, note: note?.value ?? "", mark: mark(), sort, descending, filter: words });
      grid.focus();
    }
    const choose = () => act("choose");
    grid.addEventListener("scroll", () => {
      if (grid.dataset.first !== undefined) { delete grid.dataset.first; return; } // our own
      const room = grid.scrollHeight - grid.clientHeight;
      first = room > 0 ? Math.round((grid.scrollTop / room) * last()) : 0;
      draw();
    });
    const keys = {
      ArrowDown: () => move(row_ + 1), ArrowUp: () => move(row_ - 1),
      ArrowRight: () => { column = Math.min(column + 1, heads.length - 1); draw(); },
      ArrowLeft: () => { column = Math.max(column - 1, 0); draw(); },
      PageDown: () => move(row_ + shownRows), PageUp: () => move(row_ - shownRows),
      Home: () => move(0), End: () => move(count - 1),
      ...(follows
        ? { j: () => move(row_ + 1), k: () => move(row_ - 1), Enter: () => move(row_ + 1) }
        : { " ": choose, Enter: () => act("open") }),
      ...Object.fromEntries(Object.keys(pressable).map((key) => [key, () => press(key)])),
    };
    if (noteKey) keys[noteKey] = () => note.focus();
    grid.addEventListener("keydown", (event) => {
      if (event.target !== grid || event.altKey || event.metaKey || event.ctrlKey || !Object.hasOwn(keys, event.key)) return;
      event.preventDefault();
      event.stopPropagation(); // Lab has shortcuts of its own
      if (event.repeat && Object.hasOwn(pressable, event.key)) return; // a key held down decides once
      keys[event.key]();
    });
    let waiting = 0;
    input.addEventListener("keydown", (event) => event.stopPropagation());
    input.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { words = input.value; restart(); }, 200);
    });
    const told = (message) => {
      if (message.stale) { row_ += message.step ?? 0; return again(); }
      if (message.pressed) { if (note) note.value = ""; return; }
      if (message.error) { status.textContent = message.error; return; }
      if (message.row !== undefined) {
        if (message.is_chosen) chosen.add(message.row); else chosen.delete(message.row);
        return draw();
      }
      if (message.id !== turn) return; // of another order
      count = message.count;
      row_ = Math.min(row_, Math.max(0, count - 1));
      pages.delete(message.page);
      pages.set(message.page, message.rows);
      marks.set(message.page, message.marks);
      message.chosen.forEach((at) => chosen.add(message.page * size + at));
      while (pages.size > KEPT_PAGES) { const old = pages.keys().next().value; pages.delete(old); marks.delete(old); asked.delete(old); }
      resize();
      first = Math.min(first, last());
      draw();
      if (message.page === Math.floor(row_ / size)) follow();
    };
    model.on("msg:custom", told);
    resize();
    draw();
    return () => { clearTimeout(waiting); clearTimeout(following); model.off("msg:custom", told); };
  },
};
