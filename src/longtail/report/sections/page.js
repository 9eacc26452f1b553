(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // Which entry is looked at.
  const picker = document.getElementById("pick");
  const choose = (number) => {
    for (const element of all("[data-entry]")) element.classList.toggle("on", element.dataset.entry === number);
    for (const button of all("[data-pick]")) button.setAttribute("aria-pressed", String(button.dataset.pick === number));
    for (const curve of all(".curve.on")) curve.parentNode.append(curve); // on top of the others
    if (picker) picker.value = number;
  };
  if (picker) {
    picker.addEventListener("change", () => choose(picker.value));
    for (const button of all("[data-pick]")) button.addEventListener("click", () => choose(button.dataset.pick));
    choose(picker.value);
  } else {
    for (const element of all("[data-entry]")) element.classList.add("on");
  }

  // What the charts read out: taken before any table is put in another order.
  const readings = (table) => {
    const titles = all("thead th", table).map((cell) => cell.textContent);
    return all("tbody tr[data-x]", table).map((row) => {
      const cells = [...row.cells].map((cell) => cell.textContent.trim());
      const told = cells.slice(1).map((text, k) => (text ? `${titles[k + 1]} ${text}` : "")).filter(Boolean);
      return { x: Number(row.dataset.x), text: `${cells[0]}: ${told.join(" · ")}` };
    });
  };
  for (const plot of all("[data-readout]")) {
    const points = readings(document.getElementById(plot.dataset.readout)).sort((a, b) => a.x - b.x);
    if (!points.length) continue;
    const image = plot.querySelector("svg");
    const line = plot.previousElementSibling;
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", "0");
    cursor.setAttribute("y2", image.getAttribute("height"));
    let place = -1;
    const show = (number) => {
      place = Math.min(Math.max(number, 0), points.length - 1);
      line.textContent = points[place].text;
      line.classList.add("live");
      cursor.setAttribute("x1", `${points[place].x}%`);
      cursor.setAttribute("x2", `${points[place].x}%`);
      image.append(cursor);
    };
    const hide = () => {
      place = -1;
      line.textContent = line.dataset.hint;
      line.classList.remove("live");
      cursor.remove();
    };
    const follow = (event) => {
      const box = image.getBoundingClientRect();
      const x = (100 * (event.clientX - box.left)) / box.width;
      let nearest = 0;
      points.forEach((point, k) => {
        if (Math.abs(point.x - x) < Math.abs(points[nearest].x - x)) nearest = k;
      });
      if (nearest !== place) show(nearest);
    };
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerdown", follow);
    plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: Math.max(place, 0) - 1, Home: 0, End: points.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  }

  // Tables in another order.
  const value = (row, column) => {
    const cell = row.cells[column];
    return "v" in cell.dataset ? Number(cell.dataset.v) : null;
  };
  const compare = (column, numeric, sign) => (a, b) => {
    if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent, undefined, { numeric: true });
    const [x, y] = [value(a, column), value(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last, either way
    return sign * (x - y);
  };
  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const body = table.tBodies[0];
        const rows = [...body.rows];
        const numeric = rows.some((row) => value(row, column) !== null);
        const before = head.getAttribute("aria-sort");
        const upwards = before ? before === "descending" : !numeric;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
        body.append(...rows.sort(compare(column, numeric, upwards ? 1 : -1)));
      });
    });
  }
  for (const input of all("[data-filter]")) {
    const rows = all("tbody tr", document.getElementById(input.dataset.filter));
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    });
  }
})();
