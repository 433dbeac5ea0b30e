"""charts/: Helm's own lint, what comes out of it for each file in ci/, and that it is what kustomize builds."""
import json
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

from .common import BIN, ROOT, Loader, load, portcullis, run, wrong
from .kubernetes import KUBERNETES, filter_configuration, resource, strict

CHART = "charts/portcullis"
# Where kustomize has the same: a file of values, what kustomize builds, and the kinds that only one of them has.
SAME = (("istio", "istio/base"), ("envoy-gateway", "envoy/gateway/base"))
# Overlays that docs/release.md names for use beside the chart.
BESIDE = ("istio/overlays/gateway", "envoy/gateway/native")


def chart(files):
    for file in files:
        if "/templates/" not in file:
            load(file)
    without_service()
    if not (BIN / "helm").exists():
        print("check-files: no helm here: the chart is not checked")
        return
    for values in sorted((ROOT / CHART / "ci").glob("*.yaml")):
        place = str(values.relative_to(ROOT))
        code, output, errors = run([BIN / "helm", "lint", "--strict", CHART, "--values", place])
        if code != 0:
            wrong(place, f"helm lint: {output.strip()} {errors}")
        text = template("--values", place)
        if text is None:
            wrong(place, "helm template fails")
            continue
        documents = [document for document in yaml.load_all(text, Loader) if document]
        for document in documents:
            resource(place, document)
        kubeconform(place, text)
        command_line(place, documents)
        compare(place, values.stem, documents)
    # A check that finds nothing may look at nothing.
    for what in ("optoins.max-lifetime=1h", "options.listen=1", "replicas=none", "istio.filterPrincipals[0]=anybody"):
        if template("--set", what) is not None:
            wrong(CHART, f"values.schema.json takes {what}")


def without_service():
    """What is applied beside the chart is the filter, and nothing of the service."""
    directory = ROOT / "dist/beside-helm"
    directory.mkdir(parents=True, exist_ok=True)
    for overlay in BESIDE:
        (directory / "kustomization.yaml").write_text(
            f"resources: [../../{overlay}]\ncomponents: [../../istio/without-service]\n"
        )
        code, output, errors = run([BIN / "kubectl", "kustomize", directory])
        if code != 0:
            wrong(f"istio/without-service with {overlay}", errors)
            continue
        documents = [document for document in yaml.load_all(output, Loader) if document]
        for document in documents:
            if "portcullis" in (document["metadata"].get("namespace"), document["kind"] == "Namespace" and
                                document["metadata"]["name"]):
                wrong(f"istio/without-service with {overlay}", f"{key(document)} stays")
        filter_configuration(f"istio/without-service with {overlay}", output)


def template(*arguments):
    code, output, _ = run([BIN / "helm", "template", "portcullis", CHART, "--namespace", "portcullis", *arguments])
    return output if code == 0 else None


def command_line(place, documents):
    """The service takes the options, up to files that are not here."""
    [deployment] = [document for document in documents if document["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    code, _, errors = run([portcullis(), *container["args"], "--check"])
    if code == 2:
        wrong(place, f"portcullis does not take its options: {errors}")


def compare(place, values, documents):
    directory = dict(SAME).get(values)
    if directory is None:
        return
    code, output, errors = run([BIN / "kubectl", "kustomize", directory])
    if code != 0:
        wrong(directory, errors)
        return
    built = [document for document in yaml.load_all(output, Loader) if document]
    built = {key(one): bare(one) for one in built if one["metadata"].get("namespace") == "portcullis"}
    helms = {key(one): bare(one) for one in documents}
    for name in sorted(built.keys() | helms.keys()):
        if built.get(name) != helms.get(name):
            wrong(place, f"{name} is not that of {directory}")


def key(document):
    return f"{document['kind']} {document['metadata']['name']}"


def bare(document):
    """Without labels, which name the tool, and without what is the default anyway."""
    document["metadata"].pop("labels", None)
    if document["kind"] == "Deployment":
        for container in document["spec"]["template"]["spec"]["containers"]:
            container.pop("imagePullPolicy", None)
    return document


def kubeconform(place, text):
    """Kubernetes' schemas and ours, in one folder, named and linked as kubeconform reads them."""
    if not (BIN / "kubeconform").exists():
        return
    [installed] = (Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema").glob(f"v{KUBERNETES}.*-strict")
    kinds = {document["kind"].lower() for document in yaml.safe_load_all(text) if document}
    with tempfile.TemporaryDirectory() as directory:
        for file in installed.glob("*.json"):
            if file.stem == "_definitions" or file.stem.split("-")[0] in kinds:
                schema = json.loads(file.read_text().replace("/api/_definitions.json", "_definitions.json"))
                # It names a place on the network.
                schema.pop("$id", None)
                (Path(directory) / file.name).write_text(json.dumps(schema))
        for file in (ROOT / "schemas").glob("*-*.json"):
            schema = strict(json.loads(file.read_text()))
            schema.setdefault("properties", {}).update({name: {} for name in ("apiVersion", "kind", "metadata")})
            (Path(directory) / file.name.lower()).write_text(json.dumps(schema))
        names = "{{.ResourceKind}}{{.KindSuffix}}.json", "{{.Group}}-{{.ResourceAPIVersion}}-{{.ResourceKind}}.json"
        locations = [word for name in names for word in ("-schema-location", f"{directory}/{name}")]
        code, output, errors = run([BIN / "kubeconform", "-strict", *locations, "-"], input=text)
    if code != 0:
        wrong(place, f"kubeconform: {output.strip()} {errors}")
