// A user's sessions, and their end.
import { call, Refused, segment } from "./api.js";
import { button, byId, confirmed, element, list, say, table, time, value, visible } from "./dom.js";

const PAGE = 200;

let run;
let lookups = 0;

export function start(runner) {
  run = runner;
  byId("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(() => lookUp(byId("subject").value));
  });
}

export async function opened() {
  say("");
}

export function clear() {
  lookups += 1;
  byId("user-sessions").replaceChildren();
}

async function sessionsOf(subject) {
  const found = [];
  let cursor = "";
  do {
    const from = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const page = await call("GET", `v1/subjects/${segment(subject)}/sessions?limit=${PAGE}${from}`);
    found.push(...page.sessions);
    cursor = page.cursor ?? "";
  } while (cursor !== "");
  return found;
}

// `before`: what was done just now, which is said with the result.
async function lookUp(subject, before = "") {
  lookups += 1;
  const lookup = lookups;
  const place = byId("user-sessions");
  place.replaceChildren();
  let sessions;
  try {
    sessions = await sessionsOf(subject);
  } catch (error) {
    if (error instanceof Refused && error.code === "no_sessions") {
      throw new Error(`${before}This service issues no sessions. End a user of another issuer by a revocation of the kind user.`);
    }
    throw error;
  }
  // Another user was looked up meanwhile.
  if (lookup !== lookups) {
    return;
  }
  const title = element("h2", { tabindex: "-1" }, "Sessions of ", value(subject));
  const endAll = button("End all sessions…", `End all sessions of ${visible(subject)}`, () => run(() => end(subject, null)), {
    class: "danger",
    id: "end-all",
  });
  const rows = sessions.map((session) => [
    value(session.sid),
    value(session.client_id),
    time(session.created),
    time(session.last_used),
    time(session.ends),
    value(session.binding?.client_addresses),
    value(session.binding?.user_agent_sha256),
    details(session),
    button("End…", `End session ${session.sid}`, () => run(() => end(subject, session.sid)), { class: "danger" }),
  ]);
  const columns = ["Session", "Client", "Created", "Last seen", "Ends", "Place", "Agent (SHA-256)", "All fields", "Action"];
  place.replaceChildren(title, endAll, ...(rows.length === 0 ? [] : [table("Live sessions", columns, rows)]));
  say(`${before}${count(sessions.length)} found.`);
  title.focus();
}

function details(session) {
  const times = ["created", "auth_time", "ends", "last_used"];
  const pairs = Object.entries(session).map(([name, field]) => [visible(name), times.includes(name) ? time(field) : value(field)]);
  return element("details", {}, element("summary", {}, "Show"), list(pairs));
}

// The preview is read anew: the list may be old.
async function end(subject, sid) {
  const reached = sid === null ? await sessionsOf(subject) : [await call("GET", `v1/sessions/${segment(sid)}`)];
  const more = sid === null
    ? [element("p", {}, "Everything that this service issued for the user until now is revoked too, also sessions that no list has. A new login works.")]
    : [];
  const items = reached.map((session) =>
    element("li", {}, value(session.sid), " of ", value(session.subject), ", last seen ", time(session.last_used)));
  const reason = await confirmed({
    title: element("span", {}, sid === null ? `End ${count(reached.length)} of ` : "End one session of ", value(subject)),
    reach: [element("p", {}, `This reaches ${count(reached.length)}:`), element("ul", {}, ...items), ...more],
    yes: sid === null ? "End all" : "End it",
    reason: true,
  });
  if (reason === null) {
    say("Nothing was ended.");
    return;
  }
  const path = sid === null ? `v1/subjects/${segment(subject)}/sessions` : `v1/sessions/${segment(sid)}`;
  const { ended } = await call("DELETE", path, { reason });
  await lookUp(subject, `Ended ${count(ended.length)}. `);
}

const count = (number) => (number === 1 ? "1 session" : `${number} sessions`);
