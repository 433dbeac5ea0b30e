// What the service knows of itself: readiness and metrics.
import { send } from "./api.js";
import { byId, element, list, say, table, value } from "./dom.js";

let loads = 0;

export function start(run) {
  byId("health-again").addEventListener("click", () => run(opened));
}

export function clear() {
  loads += 1;
  byId("health-state").replaceChildren();
}

export async function opened() {
  clear();
  const mine = loads;
  const [readiness, metrics] = await Promise.all([send("GET", "readyz"), send("GET", "metrics")]);
  if (mine !== loads) {
    return;
  }
  // 503 with a body says why it is not ready.
  const ready = JSON.parse(readiness.text);
  const pairs = Object.entries(ready).map(([name, given]) => [name, value(given)]);
  byId("health-state").replaceChildren(
    list(pairs),
    table("Metrics", ["Metric", "Labels", "Value", "Meaning"], read(metrics.text)),
  );
  say(ready.ready ? "The service is ready." : "The service is not ready.");
}

// OpenMetrics text. Single buckets of histograms are left out.
function read(text) {
  const meaning = new Map();
  const rows = [];
  for (const line of text.split("\n")) {
    const help = /^# HELP (\S+) (.*)$/.exec(line);
    if (help !== null) {
      meaning.set(help[1], help[2]);
    }
    const sample = /^([A-Za-z_:][\w:]*)(\{.*\})? (\S+)$/.exec(line);
    if (sample !== null && !sample[1].endsWith("_bucket")) {
      const [, name, labels = "", number] = sample;
      const family = name.replace(/_(total|sum|count|created|info)$/, "");
      rows.push([value(name), value(labels), value(number), element("span", {}, value(meaning.get(family) ?? ""))]);
    }
  }
  return rows;
}
