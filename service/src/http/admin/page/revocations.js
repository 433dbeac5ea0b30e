// The list of revocations, new ones, and the lifting of old ones.
import { call, segment } from "./api.js";
import { button, byId, confirmed, element, list, say, table, time, value } from "./dom.js";

const PAGE = 50;
// To fill a page.
const MOST_CALLS = 20;
// Of these, what was issued until now is dead, and later logins work. The others are dead for good.
const UNTIL_NOW = ["user", "client", "issuer"];

let run;
let cursor = "";
let loads = 0;

export function start(runner) {
  run = runner;
  byId("revocation-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(revoke);
  });
  byId("revocations-first").addEventListener("click", () => run(() => load("")));
  byId("revocations-next").addEventListener("click", () => run(() => load(cursor)));
}

export const opened = () => load("");

export function clear() {
  loads += 1;
  cursor = "";
  byId("revocation-list").replaceChildren();
  byId("revocations-next").hidden = true;
}

// `before`: what was done just now, which is said with the result.
async function load(from, before = "") {
  clear();
  const mine = loads;
  const entries = [];
  let next = from;
  // The service may answer with fewer than it was asked for, although there are more.
  for (let calls = 0; calls < MOST_CALLS && entries.length < PAGE && (calls === 0 || next !== ""); calls += 1) {
    const limit = PAGE - entries.length;
    const page = await call("GET", `v1/revocations?limit=${limit}${next === "" ? "" : `&cursor=${encodeURIComponent(next)}`}`);
    if (mine !== loads) {
      return;
    }
    entries.push(...page.revocations);
    next = page.cursor ?? "";
  }
  const rows = entries.map((entry) => [
    value(entry.kind),
    value(entry.id ?? entry.signing_input_sha256),
    value(entry.issuer),
    element("span", {}, value(entry.answer), entry.before === undefined ? "" : " ", entry.before === undefined ? "" : time(entry.before)),
    time(entry.until),
    value(entry.reason),
    value(entry.by),
    time(entry.at),
    button("Lift…", `Lift revocation ${entry.key}`, () => run(() => lift(entry.key)), { class: "danger" }),
  ]);
  const columns = ["Kind", "Id", "Issuer", "Answer", "Until", "Reason", "By", "At", "Action"];
  byId("revocation-list").replaceChildren(table("Revocations in force", columns, rows));
  cursor = next;
  byId("revocations-next").hidden = cursor === "";
  say(`${before}Revocations on this page: ${rows.length}${cursor === "" ? "" : ", and there are more"}.`);
}

// Nothing says which tokens exist: issuers sign them, and nobody keeps a list. So the preview says what is meant.
async function revoke() {
  const [kind, issuer, id] = ["kind", "issuer", "id"].map((name) => byId(name).value);
  const target = { kind, issuer, ...(id === "" ? {} : { id }) };
  const effect = UNTIL_NOW.includes(kind)
    ? "Tokens that were issued until now are refused. Tokens of a later login pass."
    : "It is refused for good.";
  const reason = await confirmed({
    title: `Revoke one ${kind}`,
    reach: [
      list(Object.entries(target).map(([name, given]) => [name, value(given)])),
      element("p", {}, effect, " How many tokens this reaches is not known here."),
    ],
    yes: "Revoke",
    reason: true,
  });
  if (reason === null) {
    say("Nothing was revoked.");
    return;
  }
  const done = await call("POST", "v1/revocations", { ...target, reason });
  byId("revocation-form").reset();
  await load("", `Revoked: ${done.ends}. `);
}

async function lift(key) {
  const entry = await call("GET", `v1/revocations/${segment(key)}`);
  const reason = await confirmed({
    title: "Lift this revocation",
    reach: [
      list(Object.entries(entry).map(([name, given]) => [name, ["before", "until", "at"].includes(name) ? time(given) : value(given)])),
      element("p", {}, "Tokens that it ended and that have not expired pass again."),
    ],
    yes: "Lift it",
    reason: false,
  });
  if (reason === null) {
    say("Nothing was lifted.");
    return;
  }
  await call("DELETE", `v1/revocations/${segment(key)}`);
  await load("", "Lifted. ");
}
