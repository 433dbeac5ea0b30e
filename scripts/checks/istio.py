"""istio/: every overlay as kustomize builds it."""
import json
import os

import yaml

from .common import BIN, ROOT, Loader, load, run, wrong
from .envoy import around, refusal
from .kubernetes import filter_configuration, resource

PLACES = ("gateway", "sidecar", "sidecar-enforced", "waypoint")
# Each place with the filter as a WasmPlugin, as a TrafficExtension, and as a dynamic module in the EnvoyFilter.
OVERLAYS = PLACES + tuple(f"{place}-{form}" for form in ("traffic-extension", "native") for place in PLACES)


def istio(files):
    """Every overlay as kustomize builds it, each document against its schema, and the filter's configuration."""
    for build in ("build", "build-native"):
        if not (ROOT / "istio" / build / "kustomization.yaml").exists():
            wrong(f"istio/{build}", "is not there: run `make image` and `make image HOST=native`")
            return
    deployments, configurations = {}, {}
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
            place = os.path.basename(directory)
            configurations[place] = policies(directory, documents)
            deployments[place] = [
                yaml.safe_load(d["data"]["deployment"]) for d in documents if "deployment" in d.get("data", {})
            ]
    for place in PLACES:
        if any(configurations[place] != configurations.get(other) for other in configurations if other.startswith(place)):
            wrong(f"istio/overlays/{place}", "the filter's forms do not have one configuration")
        if [without_module(one) for one in deployments[f"{place}-native"]] != deployments[place]:
            wrong(f"istio/overlays/{place}-native", f"its deployment is not that of {place} with the module")
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
    """What a schema cannot say: that the pieces name each other. Returns the filter's configuration."""
    by_kind = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    # The proxies of the filter have the settings that it relies on.
    [settings] = by_kind["EnvoyFilter"]
    patched = settings["spec"].get("targetRefs") or settings["spec"].get("workloadSelector", {}).get("labels")
    # Several would run the filter twice.
    plugins = by_kind.get("WasmPlugin", []) + by_kind.get("TrafficExtension", [])
    is_native = place.endswith("-native")
    if is_native:
        if plugins:
            wrong(place, "has the filter as a plugin too")
        namespace, runs_in, configuration = settings["metadata"]["namespace"], patched, native(place, settings, by_kind)
    else:
        [plugin] = plugins
        if plugin["kind"] != ("TrafficExtension" if place.endswith("-traffic-extension") else "WasmPlugin"):
            wrong(place, f"has the filter as a {plugin['kind']}")
        namespace, phase = plugin["metadata"]["namespace"], plugin["spec"].get("phase")
        spec = plugin["spec"] if plugin["kind"] == "WasmPlugin" else plugin["spec"]["wasm"]
        if (phase, spec.get("failStrategy")) != ("AUTHN", "FAIL_RELOAD"):
            wrong(place, "the filter's phase is AUTHN, and its failStrategy FAIL_RELOAD")
        if len(spec.get("sha256", "")) != 64 or not spec["url"].startswith("oci://"):
            wrong(place, "the filter has no url and sha256")
        runs_in = plugin["spec"].get("targetRefs") or plugin["spec"].get("selector", {}).get("matchLabels")
        configuration = spec["pluginConfig"]
    if not runs_in or runs_in != patched:
        wrong(place, "the EnvoyFilter is not for the proxies of the filter")
    if "sidecar-enforced" in place and runs_in != {"app": "orders"}:
        wrong(place, "a pod of `app: orders` can be without the filter")
    if settings["metadata"]["namespace"] != namespace:
        wrong(place, f"the EnvoyFilter is not in {namespace}")
    # One path in three places: the filter answers it, the routes refuse it, the probe requests it.
    probes = [rule["match"]["path"]["exact"] for rule in configuration["rules"] if rule["access"] == "probe"]
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
    asked = [configuration["revocation"]["cluster"]]
    asked += [issuer["jwks"]["cluster"] for issuer in configuration["issuers"] if "jwks" in issuer]
    for cluster in asked:
        direction, port, _, host = cluster.split("|")
        if direction != "outbound" or int(port) not in hosts.get(host, []):
            wrong(place, f"no Service of this build makes the cluster `{cluster}`")
    # The proxies that may send checks must be where the filter runs.
    [check] = [p for p in by_kind["AuthorizationPolicy"] if p["metadata"]["name"] == "portcullis-check"]
    for principal in check["spec"]["rules"][0]["from"][0]["source"]["principals"]:
        if f"/ns/{namespace}/" not in principal:
            wrong(place, f"{principal} may ask, and the filter is in {namespace}")
    if is_native:
        return configuration
    labels = [(t["tag_name"], t["regex"]) for c in by_kind["ConfigMap"] if c["metadata"]["name"] == "portcullis-stats"
              for t in json.loads(c["data"]["custom_bootstrap.json"])["stats_config"]["stats_tags"]]
    if labels != envoy_stats_tags():
        wrong(place, "its stats_tags are not those of envoy/envoy.yaml")
    return configuration


def without_module(deployment):
    pod = deployment["spec"]["template"]["spec"]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "portcullis"]
    for container in pod["containers"]:
        container["env"] = [one for one in container["env"] if one["name"] != "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"]
        container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "portcullis"]
    return deployment


def native(place, settings, by_kind):
    """The module's part: the filter of the EnvoyFilter, and what the proxy needs to find it. Returns the filter's
    configuration."""
    patches = settings["spec"]["configPatches"]
    [added] = [patch for patch in patches if patch["applyTo"] == "HTTP_FILTER"]
    if added["patch"]["operation"] != "INSERT_FIRST" or len({patch["match"]["context"] for patch in patches}) != 1:
        wrong(place, "the filter is not the first, or not where the settings are")
    filter_ = added["patch"]["value"]["typed_config"]
    variable = filter_["filter_config"]["value"]["revocation"]["secret_env"]
    containers = [yaml.safe_load(c["data"]["deployment"]) for c in by_kind["ConfigMap"] if "deployment" in c["data"]]
    if "sidecar" in place:
        containers = [load("istio/overlays/sidecar-native/orders-patch.yaml")[0]]
    [pod] = [document["spec"]["template"]["spec"] for document in containers]
    [proxy] = pod["containers"]
    environment = {one["name"]: one for one in proxy["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in proxy["volumeMounts"]}
    image = next(volume["image"]["reference"] for volume in pod["volumes"] if volume["name"] == "portcullis")
    directory = environment.get("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", {}).get("value")
    if directory != mounts.get("portcullis") or variable not in environment:
        wrong(place, "the proxy lacks the module or the secret")
    if "sidecar" not in place and "@sha256:" not in image:
        wrong(place, "the module's image has no digest")
    error = refusal(json.dumps(around(filter_)))
    if error:
        wrong(place, f"Envoy refuses the filter: {error[-600:]}")
    return filter_["filter_config"]["value"]


def envoy_stats_tags():
    text = (ROOT / "envoy/envoy.yaml").read_text()
    tags = yaml.load(text[text.index("stats_config:"):text.index("overload_manager:")], Loader)
    return [(tag["tag_name"], tag["regex"]) for tag in tags["stats_config"]["stats_tags"]]
