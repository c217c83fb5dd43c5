"use strict";
(() => {
  const told = JSON.parse(document.getElementById("cards").textContent);
  const dialog = document.getElementById("card");
  const list = dialog.querySelector("dl");

  const put = (pairs) => {
    for (const [what, value] of pairs) {
      const dt = document.createElement("dt");
      dt.textContent = what;
      const dd = document.createElement("dd");
      dd.textContent = value;
      list.append(dt, dd);
    }
  };

  document.addEventListener("click", (event) => {
    const number = event.target.closest("button.num");
    if (!number) return;
    const card = told.cards[number.dataset.card];
    dialog.querySelector("h2").textContent = card.title;
    dialog.querySelector("output").textContent = number.textContent;
    list.replaceChildren();
    put(card.pairs);
    if (card.made !== undefined) put(told.made[card.made]);
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the ground behind the card
  });

  // A figure says its values under the pointer, at a touch, and to the arrow keys.
  for (const figure of document.querySelectorAll("main figure")) {
    const box = figure.querySelector(".box");
    const spots = [...figure.querySelectorAll(".told > *")];
    let at = -1;
    const read = (spot) => {
      for (const s of spots) s.classList.toggle("at", s === spot);
      figure.querySelector("output").textContent = spot.querySelector("title").textContent;
      at = spots.indexOf(spot);
    };
    const pointed = (event) => {
      const spot = event.target.closest(".told > *");
      if (spot) read(spot);
    };
    box.addEventListener("pointerover", pointed);
    box.addEventListener("click", pointed);
    box.addEventListener("keydown", (event) => {
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spots.length - 1 }[event.key];
      if (to === undefined || !spots.length) return;
      event.preventDefault();
      read(spots[Math.min(Math.max(to, 0), spots.length - 1)]);
      const [spot, view] = [spots[at].getBoundingClientRect(), box.getBoundingClientRect()];
      box.scrollLeft += (spot.left + spot.right - view.left - view.right) / 2;
    });
  }

  // Numbers are typeset with a true minus sign and thousands separators; what is no number goes last.
  const value = (cell) => {
    const text = cell.textContent.replace(/[,\s\u00a0]/g, "").replace(/\u2212/g, "-").replace(/^[<>]/, "");
    const found = /^-?\d*\.?\d+/.exec(text);
    return found ? Number(found[0]) : Number.NaN;
  };
  const collator = new Intl.Collator("en", { numeric: true });
  for (const table of document.querySelectorAll("main table")) {
    const heads = [...table.querySelectorAll("thead th")];
    heads.forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        for (const body of table.tBodies) {
          const lines = [...body.rows].filter((r) => !r.classList.contains("group") && !r.classList.contains("total"));
          const rest = [...body.rows].filter((r) => r.classList.contains("total"));
          lines.sort((a, b) => {
            const [x, y] = [a.cells[at], b.cells[at]];
            if (!head.classList.contains("n")) return (up ? 1 : -1) * collator.compare(x.textContent, y.textContent);
            const [p, q] = [value(x), value(y)];
            if (Number.isNaN(p) || Number.isNaN(q)) return Number.isNaN(p) - Number.isNaN(q);
            return up ? p - q : q - p;
          });
          body.append(...lines, ...rest);
        }
      });
    });
  }
})();
