// The audit trail.
import { call } from "./api.js";
import { byId, element, say, table, time, value } from "./dom.js";

const PAGE = 200;

let entries = [];
let next = "";
let loads = 0;

export function start(run) {
  byId("audit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(opened);
  });
  byId("audit-next").addEventListener("click", () => run(() => load(next)));
  byId("containing").addEventListener("input", () => render());
}

export async function opened() {
  const seconds = Number(byId("since").value);
  await load(seconds === 0 ? "" : String(Date.now() - seconds * 1000));
}

export function clear() {
  loads += 1;
  entries = [];
  next = "";
  byId("audit-entries").replaceChildren();
  byId("audit-next").hidden = true;
}

async function load(after) {
  clear();
  const mine = loads;
  const page = await call("GET", `v1/audit?limit=${PAGE}${after === "" ? "" : `&after=${encodeURIComponent(after)}`}`);
  if (mine !== loads) {
    return;
  }
  // The API has the oldest first.
  entries = page.entries.reverse();
  next = page.next ?? "";
  byId("audit-next").hidden = after === "" || page.entries.length < PAGE;
  render();
}

function render() {
  const containing = byId("containing").value.toLowerCase();
  const chosen = entries.filter((entry) => JSON.stringify(entry).toLowerCase().includes(containing));
  const rows = chosen.map((entry) => [
    time(entry.at),
    value(entry.by),
    value(entry.from),
    value(entry.action),
    value(entry.outcome),
    target(entry),
    value(entry.reason),
  ]);
  byId("audit-entries").replaceChildren(table("Audit entries, newest first", ["At", "By", "From", "Action", "Outcome", "Target", "Reason"], rows));
  say(`Entries: ${rows.length}.`);
}

function target(entry) {
  // `id` is the entry's place in the stream, unless the entry has an id of its target.
  const isPlace = /^\d+-\d+$/.test(entry.id);
  const names = ["kind", "iss", "sub", "sid", "client_id", ...(isPlace ? [] : ["id"])];
  const named = names.filter((name) => entry[name] !== undefined);
  return element("span", {}, ...named.flatMap((name) => [`${name} `, value(entry[name]), element("br")]));
}
