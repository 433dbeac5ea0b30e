"""envoy/gateway/: every overlay as kustomize builds it, and what Envoy makes of its filter and clusters."""
import json
import os

import yaml

from .common import BIN, ROOT, load, run, wrong
from .envoy import around, refusal
from .istio import envoy_stats_tags, is_built
from .kubernetes import filter_configuration, patch, resource

OVERLAYS = ("native", "native-init-container", "wasm")
# Where the module is in the proxy.
MODULE = "/etc/portcullis/libportcullis.so"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def gateway(files):
    for build in ("build", "build-native"):
        if not (ROOT / "envoy/gateway" / build / "kustomization.yaml").exists():
            wrong(f"envoy/gateway/{build}", "is not there: run `make image` and `make image HOST=native`")
            return
    configurations = []
    for overlay in OVERLAYS:
        directory = f"envoy/gateway/{overlay}"
        code, output, errors = run([BIN / "kubectl", "kustomize", directory])
        if code != 0 or errors:
            wrong(directory, errors or "kustomize fails")
            continue
        documents = [document for document in yaml.safe_load_all(output) if document]
        for document in documents:
            resource(directory, document)
        filter_configuration(directory, output)
        configurations.append(connected(directory, documents))
    if any(configuration != configurations[0] for configuration in configurations):
        wrong("envoy/gateway", "the overlays do not have one configuration")
    for file in files:
        documents = load(file)
        if not is_built(file) and not file.endswith(("kustomization.yaml", "stats-tags.yaml")):
            for document in documents:
                resource(file, document)


def connected(place, documents):
    """What a schema cannot say: that the pieces name each other. Returns the filter's configuration."""
    [policy] = of_kind(documents, "EnvoyExtensionPolicy")
    [proxy] = of_kind(documents, "EnvoyProxy")
    [entrance] = of_kind(documents, "Gateway")
    targets = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": entrance["metadata"]["name"]}]
    for document in policy, *of_kind(documents, "ClientTrafficPolicy"):
        if document["spec"]["targetRefs"] != targets:
            wrong(place, f"the {document['kind']} is not for the Gateway alone")
    if entrance["spec"]["infrastructure"]["parametersRef"]["name"] != proxy["metadata"]["name"]:
        wrong(place, "the Gateway has not the EnvoyProxy")
    for document in policy, proxy, *of_kind(documents, "HTTPRouteFilter", "ClientTrafficPolicy", "HTTPRoute"):
        if document["metadata"]["namespace"] != entrance["metadata"]["namespace"]:
            wrong(place, f"the {document['kind']} is not in the Gateway's namespace")

    kinds = {"wasm", "dynamicModule"} & policy["spec"].keys()
    if len(kinds) != 1 or len(policy["spec"][next(iter(kinds))]) != 1:
        wrong(place, "the policy does not have one filter")
        return None
    [filter_] = policy["spec"][kinds.pop()]
    configuration = filter_["config"]
    deployment = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    variable = configuration["revocation"]["secret_env"]
    if not any(env["name"] == variable and "secretKeyRef" in env["valueFrom"] for env in deployment["container"]["env"]):
        wrong(place, f"the proxy has no {variable}")
    patches = proxy["spec"]["bootstrap"]["jsonPatches"]
    if "code" in filter_:
        image = filter_["code"]["image"]
        if len(image.get("sha256", "")) != 64 or filter_.get("failOpen") is not False:
            wrong(place, "the Wasm filter has no sha256, or no failOpen: false")
        tags = [(p["value"]["tag_name"], p["value"]["regex"]) for p in patches if p["path"].endswith("/stats_tags/-")]
        if tags != envoy_stats_tags():
            wrong(place, "its stats_tags are not those of envoy/envoy.yaml")
    else:
        module(place, filter_, proxy, deployment)
    probe(place, configuration, documents, deployment)

    clusters = [patch["value"] for patch in patches if patch["path"] == "/static_resources/clusters/-"]
    named = [configuration["revocation"]["cluster"]]
    named += [issuer["jwks"]["cluster"] for issuer in configuration["issuers"] if "jwks" in issuer]
    if sorted(named) != sorted(cluster["name"] for cluster in clusters):
        wrong(place, f"the filter calls {named}, and these are not the clusters of the bootstrap")
    services = {
        (f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc.cluster.local", port["port"])
        for s in of_kind(documents, "Service") for port in s["spec"]["ports"]
    }
    for cluster in clusters:
        for address in addresses(cluster):
            inside = address["address"].endswith(".svc.cluster.local")
            if inside and (address["address"], address["port_value"]) not in services:
                wrong(place, f"the cluster {cluster['name']} is of no Service of this build")
    error = refusal(json.dumps(as_envoy_gateway_writes_it(filter_, clusters)))
    if error:
        wrong(place, f"Envoy refuses its filter or clusters: {error[-600:]}")
    return configuration


def module(place, filter_, proxy, deployment):
    """The policy's module is on the allow-list, and the file is where the list says."""
    entries = [entry for entry in proxy["spec"]["dynamicModules"] if entry["name"] == filter_["name"]]
    if [entry["source"] for entry in entries] != [{"type": "Local", "local": {"path": MODULE}}]:
        wrong(place, "the EnvoyProxy does not have the policy's module, from a file")
    [mount] = deployment["container"]["volumeMounts"]
    [volume] = deployment["pod"]["volumes"]
    if (mount["name"], mount["mountPath"]) != (volume["name"], os.path.dirname(MODULE)):
        wrong(place, "the module's volume is not mounted where the module is looked for")
    copying = deployment.get("initContainers", [])
    images = [volume["image"]["reference"]] if "image" in volume else [container["image"] for container in copying]
    if len(images) != 1 or "@sha256:" not in images[0]:
        wrong(place, "the module is not from one image, by digest")
    if copying and copying[0]["volumeMounts"] != [{"name": volume["name"], "mountPath": copying[0]["args"][0]}]:
        wrong(place, "the init container copies to elsewhere")


def probe(place, configuration, documents, deployment):
    """One path: the filter answers it, the route refuses it, and the pod's probe asks for it."""
    paths = [rule["match"]["path"]["exact"] for rule in configuration["rules"] if rule["access"] == "probe"]
    [route] = of_kind(documents, "HTTPRoute")
    matches = [match["path"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    [answer] = of_kind(documents, "HTTPRouteFilter")
    status = answer["spec"]["directResponse"]["statusCode"]
    if matches != [{"type": "Exact", "value": path} for path in paths] or status < 400:
        wrong(place, f"the filter answers {paths}, and the route does not refuse just that")
    patched = deployment["patch"]["value"]
    patch(f"{place}: EnvoyProxy", "deployment", json.dumps(patched))
    [container] = patched["spec"]["template"]["spec"]["containers"]
    [entrance] = of_kind(documents, "Gateway")
    port = 10000 + entrance["spec"]["listeners"][0]["port"]
    asked = container["readinessProbe"]["httpGet"]
    if container["name"] != "envoy" or [asked["path"]] != paths or asked["port"] != port:
        wrong(place, f"the readiness probe does not ask for {paths} at port {port}")


def as_envoy_gateway_writes_it(filter_, clusters):
    """A bootstrap with the static clusters, and the filter as a listener of Envoy Gateway 1.9 has it: off, and enabled
    by each route. With this machine's build of the module."""
    text = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(filter_["config"])}
    extensions = "type.googleapis.com/envoy.extensions.filters.http"
    if "code" in filter_:
        environment = {"host_env_keys": filter_["env"]["hostKeys"]}
        code = {"local": {"filename": str(ROOT / "dist/portcullis.wasm")}}
        vm = {"vm_id": "a", "runtime": "envoy.wasm.runtime.v8", "code": code, "environment_variables": environment}
        config = {"name": filter_["name"], "root_id": filter_["rootID"], "configuration": text, "vm_config": vm}
        typed = {"@type": f"{extensions}.wasm.v3.Wasm", "config": config}
    else:
        modules = os.environ.get("PORTCULLIS_MODULES", ROOT / "dist")
        local = {"filename": f"{modules}/libportcullis.so"}
        typed = {
            "@type": f"{extensions}.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"do_not_close": True, "module": {"local": local}},
            "filter_name": filter_["filterName"],
            "filter_config": text,
        }
    # The proxy's image has them; this machine may have them elsewhere.
    if not os.path.exists(AUTHORITIES):
        clusters = [{**cluster, "transport_socket": None} for cluster in clusters]
    return around(typed, clusters, is_off=True)


def addresses(cluster):
    return [
        endpoint["endpoint"]["address"]["socket_address"]
        for group in cluster["load_assignment"]["endpoints"] for endpoint in group["lb_endpoints"]
    ]


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]
