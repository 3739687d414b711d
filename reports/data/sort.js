document.querySelectorAll("table.grid thead th button").forEach(function (button) {
  button.addEventListener("click", function () {
    var head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
    var column = Array.prototype.indexOf.call(head.parentElement.children, head);
    var down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    var value = function (row) {
      var cell = row.children[column], number = parseFloat(cell.dataset.v);
      return isNaN(number) ? cell.textContent.trim() : number;
    };
    table.querySelectorAll("th").forEach(function (th) { th.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
    Array.from(body.rows).sort(function (a, b) {
      var x = value(a), y = value(b);
      if (typeof x !== typeof y) { return typeof x === "number" ? -1 : 1; }
      return down * (x < y ? -1 : x > y ? 1 : 0);
    }).forEach(function (row) { body.appendChild(row); });
  });
});
