// Signing in and out, and which section is shown.
import { call, describeError, forget, Refused, useToken } from "./api.js";
import { byId, fail, leaveConfirmation, say, visible } from "./dom.js";
import * as audit from "./audit.js";
import * as health from "./health.js";
import * as revocations from "./revocations.js";
import * as users from "./users.js";

const SECTIONS = { users, revocations, audit, health };
const IDLE = 15 * 60_000;

let isSignedIn = false;
let idle;

function show(name) {
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = section.id !== name;
  }
  for (const entry of document.querySelectorAll("nav button")) {
    if (entry.dataset.section === name) {
      entry.setAttribute("aria-current", "page");
    } else {
      entry.removeAttribute("aria-current");
    }
  }
  const title = byId(`${name}-title`);
  document.title = `${title.textContent} · Portcullis`;
  title.focus();
}

async function signIn() {
  const input = byId("token");
  const token = input.value.trim();
  input.value = "";
  if (!/^[\x21-\x7e]*$/.test(token)) {
    fail("An admin token consists of printable ASCII characters without spaces.");
    return;
  }
  useToken(token);
  try {
    await call("GET", "v1/revocations?limit=1");
  } catch (error) {
    // Any other refusal comes after the caller was recognised; the sections show it.
    if (!(error instanceof Refused) || [401, 403, 404, 429].includes(error.status)) {
      forget();
      fail(error.status === 401 ? "This token is not accepted." : visible(describeError(error)));
      input.focus();
      return;
    }
  }
  isSignedIn = true;
  byId("sections").hidden = false;
  byId("sign-out").hidden = false;
  say("Signed in.");
  show("users");
  restartIdle();
}

function signOut(why) {
  forget();
  isSignedIn = false;
  clearTimeout(idle);
  leaveConfirmation();
  for (const form of document.forms) {
    form.reset();
  }
  Object.values(SECTIONS).forEach((section) => section.clear());
  byId("sections").hidden = true;
  byId("sign-out").hidden = true;
  say(why);
  show("sign-in");
  byId("token").focus();
}

function restartIdle() {
  clearTimeout(idle);
  if (isSignedIn) {
    idle = setTimeout(() => signOut("Signed out: nothing was done for 15 minutes."), IDLE);
  }
}

// Runs an action of a section, and shows what went wrong.
async function run(action) {
  say("Working…");
  try {
    await action();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      signOut("");
      fail("The service does not accept the token any more. Sign in again.");
    } else if (error.name !== "AbortError") {
      // A sign-out has said something already.
      fail(visible(describeError(error)));
    }
  }
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(signIn);
});
byId("sign-out").addEventListener("click", () => signOut("Signed out."));
byId("sections").addEventListener("click", (event) => {
  const name = event.target.dataset.section;
  if (name !== undefined) {
    say("");
    show(name);
    run(SECTIONS[name].opened);
  }
});
for (const section of Object.values(SECTIONS)) {
  section.start(run);
}
for (const kind of ["keydown", "pointerdown"]) {
  document.addEventListener(kind, restartIdle);
}
// The page that the browser may keep for "back" has neither token nor data.
addEventListener("pagehide", () => signOut(""));
