"""istio/: every overlay as kustomize builds it."""
import json
import os

import yaml

from .common import BIN, ROOT, Loader, load, run, wrong
from .kubernetes import filter_configuration, resource

PLACES = ("gateway", "sidecar", "sidecar-enforced", "waypoint")
# Each place with the filter as a WasmPlugin, and as a TrafficExtension.
OVERLAYS = PLACES + tuple(f"{place}-traffic-extension" for place in PLACES)


def istio(files):
    """Every overlay as kustomize builds it, each document against its schema, and the filter's configuration."""
    if not (ROOT / "istio/build/kustomization.yaml").exists():
        wrong("istio/build", "is not there: run `make image`")
        return
    built = [f"istio/overlays/{name}" for name in OVERLAYS] + ["istio/store"]
    for directory in built:
        code, output, errors = run([BIN / "kubectl", "kustomize", directory])
        if code != 0 or errors:
            wrong(directory, errors or "kustomize fails")
            continue
        documents = [document for document in yaml.load_all(output, Loader) if document]
        seen = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
        for one in {one for one in seen if seen.count(one) > 1}:
            wrong(directory, f"{one} is there twice")
        for document in documents:
            resource(directory, document)
        if directory != "istio/store":
            filter_configuration(directory, output)
            policies(directory, documents)
    # Files in no kustomization are documents of their own; the others were checked as built, with their patches.
    for file in files:
        documents = load(file)
        if not is_built(file):
            for document in documents:
                resource(file, document)


def is_built(file):
    name = os.path.basename(file)
    kustomization = ROOT / os.path.dirname(file) / "kustomization.yaml"
    if name == "kustomization.yaml":
        return True
    return kustomization.exists() and name in (yaml.safe_load(kustomization.read_text()).get("resources") or [])


def policies(place, documents):
    """What a schema cannot say: that the pieces name each other."""
    by_kind = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    # Both would run the filter twice.
    [plugin] = by_kind.get("WasmPlugin", []) + by_kind.get("TrafficExtension", [])
    if plugin["kind"] != ("TrafficExtension" if place.endswith("-traffic-extension") else "WasmPlugin"):
        wrong(place, f"has the filter as a {plugin['kind']}")
    namespace, phase = plugin["metadata"]["namespace"], plugin["spec"].get("phase")
    spec = plugin["spec"] if plugin["kind"] == "WasmPlugin" else plugin["spec"]["wasm"]
    if (phase, spec.get("failStrategy")) != ("AUTHN", "FAIL_RELOAD"):
        wrong(place, "the filter's phase is AUTHN, and its failStrategy FAIL_RELOAD")
    if len(spec.get("sha256", "")) != 64 or not spec["url"].startswith("oci://"):
        wrong(place, "the filter has no url and sha256")
    # The proxies of the filter have the settings that it relies on.
    [settings] = by_kind["EnvoyFilter"]
    runs_in = plugin["spec"].get("targetRefs") or plugin["spec"].get("selector", {}).get("matchLabels")
    patched = settings["spec"].get("targetRefs") or settings["spec"].get("workloadSelector", {}).get("labels")
    if not runs_in or runs_in != patched:
        wrong(place, "the EnvoyFilter is not for the proxies of the filter")
    if "sidecar-enforced" in place and runs_in != {"app": "orders"}:
        wrong(place, "a pod of `app: orders` can be without the filter")
    if settings["metadata"]["namespace"] != namespace:
        wrong(place, f"the EnvoyFilter is not in {namespace}")
    # One path in three places: the filter answers it, the routes refuse it, the probe requests it.
    probes = [rule["match"]["path"]["exact"] for rule in spec["pluginConfig"]["rules"] if rule["access"] == "probe"]
    routes = [p["patch"]["value"] for p in settings["spec"]["configPatches"] if p["applyTo"] == "HTTP_ROUTE"]
    if probes != [route["match"]["path"] for route in routes] or any(r["direct_response"]["status"] < 400 for r in routes):
        wrong(place, f"the filter answers {probes}, and the routes do not refuse just that")
    for options in by_kind["ConfigMap"]:
        for container in yaml.safe_load(options["data"].get("deployment", "{}")).get("spec", {}).get("template", {}).get(
                "spec", {}).get("containers", []):
            if "readinessProbe" in container and [container["readinessProbe"]["httpGet"]["path"]] != probes:
                wrong(place, f"the readiness probe does not ask for {probes}")
    # Each cluster that the filter calls must be one that Istio creates from a Service or ServiceEntry of the same
    # build.
    hosts = {f"{d['metadata']['name']}.{d['metadata']['namespace']}.svc.cluster.local": [p["port"] for p in d["spec"]["ports"]]
             for d in by_kind.get("Service", [])}
    for entry in by_kind.get("ServiceEntry", []):
        if entry["metadata"]["namespace"] != namespace:
            wrong(place, f"the ServiceEntry is not in {namespace}, and exported nowhere else")
        hosts.update({host: [port["number"] for port in entry["spec"]["ports"]] for host in entry["spec"]["hosts"]})
    asked = [spec["pluginConfig"]["revocation"]["cluster"]]
    asked += [issuer["jwks"]["cluster"] for issuer in spec["pluginConfig"]["issuers"] if "jwks" in issuer]
    for cluster in asked:
        direction, port, _, host = cluster.split("|")
        if direction != "outbound" or int(port) not in hosts.get(host, []):
            wrong(place, f"no Service of this build makes the cluster `{cluster}`")
    # The proxies that may send checks must be where the filter runs.
    [check] = [p for p in by_kind["AuthorizationPolicy"] if p["metadata"]["name"] == "portcullis-check"]
    for principal in check["spec"]["rules"][0]["from"][0]["source"]["principals"]:
        if f"/ns/{namespace}/" not in principal:
            wrong(place, f"{principal} may ask, and the filter is in {namespace}")
    labels = [(t["tag_name"], t["regex"]) for c in by_kind["ConfigMap"] if c["metadata"]["name"] == "portcullis-stats"
              for t in json.loads(c["data"]["custom_bootstrap.json"])["stats_config"]["stats_tags"]]
    if labels != envoy_stats_tags():
        wrong(place, "its stats_tags are not those of envoy/envoy.yaml")


def envoy_stats_tags():
    text = (ROOT / "envoy/envoy.yaml").read_text()
    tags = yaml.load(text[text.index("stats_config:"):text.index("overload_manager:")], Loader)
    return [(tag["tag_name"], tag["regex"]) for tag in tags["stats_config"]["stats_tags"]]
