// Calls of the admin API. The token is a variable of this module: in no storage, cookie or address.

const PATIENCE = 30_000;

let token = "";
let signedIn = new AbortController();

export class Refused extends Error {
  constructor(status, problem) {
    super(describe(status, problem));
    this.status = status;
    this.code = problem.code;
  }
}

export function useToken(given) {
  token = given;
  signedIn = new AbortController();
}

// Answers that are still on their way are dropped too.
export function forget() {
  token = "";
  signedIn.abort();
}

// The answer as JSON. `body`: what is sent as JSON.
export async function call(method, path, body) {
  const { status, text } = await send(method, path, body);
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy may answer by itself.
  }
  if (status < 200 || status > 299) {
    throw new Refused(status, answer ?? {});
  }
  return answer;
}

export async function send(method, path, body) {
  const headers = {};
  if (token !== "") {
    headers.authorization = `Bearer ${token}`;
  }
  if (body !== undefined) {
    headers["content-type"] = "application/json";
  }
  const response = await fetch(`../${path}`, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    // A client certificate, or the cookie of a proxy.
    credentials: "same-origin",
    mode: "same-origin",
    redirect: "error",
    cache: "no-store",
    signal: AbortSignal.any([signedIn.signal, AbortSignal.timeout(PATIENCE)]),
  });
  return { status: response.status, text: await response.text() };
}

// One segment of a path. The URL standard takes `.` and `..` for steps, in every spelling.
export function segment(text) {
  if (text === "." || text === "..") {
    throw new Error("This id cannot be a part of a path. Use the command `portcullis`.");
  }
  return encodeURIComponent(text);
}

// For the operator.
export function describeError(error) {
  if (error instanceof Refused) {
    return error.message;
  }
  switch (error.name) {
    case "TimeoutError":
      return "The service did not answer in time. What was asked for may have been done: look at the audit entries.";
    case "TypeError":
      return `The service cannot be reached, or a proxy answered in its place (${error.message}).`;
    default:
      return error.message;
  }
}

function describe(status, problem) {
  const written = { yes: " It is in force, but was not confirmed.", unknown: " It may be in force." }[problem.written] ?? "";
  const detail = [problem.title, problem.code, problem.detail].filter((part) => typeof part === "string").join(": ");
  return `${status} ${detail}${written}`;
}
