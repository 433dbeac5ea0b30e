// Elements, and text in them. What the service answers becomes text nodes and nothing else: subjects, claims, reasons and
// actions are chosen by others.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function button(label, described, onClick, attributes = {}) {
  const made = element("button", { type: "button", "aria-label": described, ...attributes }, label);
  made.addEventListener("click", onClick);
  return made;
}

// Characters that are not seen, or that turn the order of others round, are written out: two values that differ look
// different.
export function visible(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// A value on its own, apart from the direction of the text round it.
export function value(given) {
  if (given === undefined || given === null) {
    return "–";
  }
  const isList = Array.isArray(given) && given.every((part) => typeof part === "string");
  return element("bdi", {}, visible(isList ? given.join(", ") : given));
}

export function time(seconds) {
  const date = new Date(typeof seconds === "number" ? seconds * 1000 : NaN);
  if (Number.isNaN(date.getTime())) {
    return value(seconds);
  }
  const iso = date.toISOString();
  return element("time", { datetime: iso }, `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`);
}

// Rows of cells, each a node or text. The first cell of a row names it.
export function table(caption, columns, rows) {
  const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)));
  const body = rows.map(([first, ...rest]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((cell) => element("td", {}, cell))));
  const whole = element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body));
  // Wide tables scroll by keyboard too.
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, whole);
}

export const list = (pairs) =>
  element("dl", {}, ...pairs.flatMap(([name, node]) => [element("dt", {}, name), element("dd", {}, node)]));

// Read out by screen readers.
export function say(text) {
  byId("failure").replaceChildren();
  byId("status").replaceChildren(text);
}

export function fail(text) {
  byId("status").replaceChildren();
  byId("failure").replaceChildren(text);
}

const LEFT = "left";

// At a sign-out, which the action need not say anything of.
export function leaveConfirmation() {
  byId("confirm").close(LEFT);
  byId("confirm-reach").replaceChildren();
}

// Shows what an action will do before it is done: the reason when it is confirmed, otherwise null.
export function confirmed({ title, reach, yes, reason }) {
  const dialog = byId("confirm");
  byId("confirm-title").replaceChildren(title);
  byId("confirm-reach").replaceChildren(...reach);
  byId("confirm-yes").replaceChildren(yes);
  byId("confirm-reason").hidden = !reason;
  const input = byId("reason");
  input.value = "";
  input.required = reason;
  dialog.returnValue = "";
  return new Promise((resolve, reject) => {
    const open = new AbortController();
    const { signal } = open;
    const end = (answer) => {
      open.abort();
      dialog.close();
      byId("confirm-reach").replaceChildren();
      resolve(answer);
    };
    byId("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      end(input.value);
    }, { signal });
    byId("confirm-no").addEventListener("click", () => end(null), { signal });
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === LEFT) {
        open.abort();
        reject(new DOMException(LEFT, "AbortError"));
      } else {
        // Escape.
        end(null);
      }
    }, { signal });
    dialog.showModal();
    (reason ? input : byId("confirm-no")).focus();
  });
}
