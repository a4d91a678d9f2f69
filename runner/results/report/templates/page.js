"use strict";
(() => {
  const all = (selector, below = document) => [...below.querySelectorAll(selector)];

  // The look: what the system asks for, until the button says otherwise.
  const root = document.documentElement, button = document.getElementById("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const named = () => { button.textContent = isDark() ? "Light look" : "Dark look"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; named(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
  named();

  // Sorting: what has no value comes last either way, equal rows keep their order.
  const valueOf = (cell, isText) => isText ? cell.textContent.trim().toLowerCase() : parseFloat(cell.dataset.value ?? "NaN");
  const sort = (table, heading) => {
    const isText = heading.dataset.kind === "text", column = heading.cellIndex, body = table.tBodies[0];
    const was = heading.getAttribute("aria-sort");
    const order = (was ? was === "ascending" : !isText) ? "descending" : "ascending", sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map(row => [valueOf(row.cells[column], isText), row]);
    rows.sort(([a], [b]) => {
      if (!isText && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
      return sign * (isText ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    });
    body.append(...rows.map(([, row]) => row));
    all("th", table.tHead).forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order);
  };

  all(".board").forEach(board => {
    const table = board.querySelector(".leaderboard"), form = board.querySelector(".controls");
    const [find, kind, said] = ["input[type=search]", "select", "output"].map(one => form.querySelector(one));
    const filter = () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean), rows = [...table.tBodies[0].rows];
      rows.forEach(row => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every(word => text.includes(word)) || (kind.value !== "" && row.dataset.kind !== kind.value);
      });
      said.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
    };
    all("th", table.tHead).forEach(heading => heading.querySelector("button").addEventListener("click", () => sort(table, heading)));
    form.hidden = false;
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", filter);
    all("input[type=radio]", form).forEach(radio => {
      radio.addEventListener("change", () => { table.dataset.split = radio.value; });
      if (radio.value === "dev" && matchMedia("(max-width: 640px)").matches) radio.click();
    });
    filter();
  });

  // A page of its own for each node, as far as a reader can tell.
  const turned = () => {
    const page = document.querySelector(".page:target"), heading = page && page.querySelector("h1");
    document.title = heading ? `${heading.firstChild.textContent.trim()} · mtrun report` : "mtrun report";
    if (heading) { scrollTo(0, 0); heading.focus({ preventScroll: true }); }
  };
  addEventListener("hashchange", turned);
  turned();
})();
