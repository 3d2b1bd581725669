"use strict";
// Tables are complete without this: it only sorts and filters them.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent || head.classList.contains("drawn") || body.rows.length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.dataset.label = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const text = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const number = (row) => parseFloat(text(row).replaceAll(",", ""));
      const numeric = head.classList.contains("number");
      const order = (a, b) =>
        numeric ? (number(a) || 0) - (number(b) || 0) : text(a).localeCompare(text(b), "en", { numeric: true });
      body.append(...[...body.rows].sort((a, b) => (descending ? order(b, a) : order(a, b))));
    });
  });
}
// Only what can be scrolled need be reached by the keyboard.
const reach = () => {
  for (const region of document.querySelectorAll(".scroll")) {
    if (region.scrollWidth > region.clientWidth) region.setAttribute("tabindex", "0");
    else region.removeAttribute("tabindex");
  }
};
reach();
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
for (const form of document.querySelectorAll("form.filters")) {
  const find = form.querySelector("input");
  const body = document.getElementById(find.getAttribute("aria-controls"));
  const rows = [...body.rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const choices = [...form.querySelectorAll("select")];
  const filter = () => {
    const wanted = find.value.trim().toLowerCase();
    const chosen = choices.filter((choice) => choice.value !== "");
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !texts[i].includes(wanted) || chosen.some((c) => row.dataset[c.dataset.key] !== c.value);
      shown += row.hidden ? 0 : 1;
    });
    form.querySelector("output").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
}
// Paper can't be unfolded; what would fill many sheets is printed if its reader unfolded it.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open ||= part.querySelectorAll("tr, li").length <= 200;
});
