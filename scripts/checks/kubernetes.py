"""Documents for a cluster, against the schemas of Kubernetes and of the CRDs in schemas/."""
import json
import re
import textwrap

import jsonschema
import kubernetes_validate
import yaml

from .common import ROOT, Loader, portcullis, run, wrong

KUBERNETES = "1.33"


def strict(schema):
    """A cluster would drop a field that it does not know, in silence. Here it is an error."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    fields = schema.get("properties")
    is_object = isinstance(fields, dict) and schema.get("type") == "object"
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def validate(place, document, schema):
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    for error in validator.iter_errors(document):
        path = ".".join(str(step) for step in error.absolute_path)
        wrong(place, f"{path or 'the document'}: {error.message[:300]}")


def resource(place, document):
    """A document for a cluster: Kubernetes' own schemas, or the CRDs in schemas/."""
    version, kind = document.get("apiVersion", ""), document.get("kind", "")
    place = f"{place}: {kind} {document.get('metadata', {}).get('name')}"
    custom = ROOT / "schemas" / f"{version.replace('/', '-')}-{kind}.json"
    if custom.exists():
        schema = strict(json.loads(custom.read_text()))
        schema["properties"].update(apiVersion={"const": version}, kind={"const": kind}, metadata={"type": "object"})
        schema["additionalProperties"] = False
        validate(place, document, schema)
    else:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            path = ".".join(str(step) for step in getattr(error, "absolute_path", []))
            wrong(place, f"{path}: {error.message[:300]}")
    # What Istio merges into a Deployment that it creates is itself a part of one.
    if kind == "ConfigMap":
        for name, text in document.get("data", {}).items():
            patch(f"{place}: {name}", name, text)


def patch(place, name, text):
    kinds = {
        "deployment": ("apps/v1", "Deployment"),
        "horizontalPodAutoscaler": ("autoscaling/v2", "HorizontalPodAutoscaler"),
        "podDisruptionBudget": ("policy/v1", "PodDisruptionBudget"),
    }
    if name not in kinds:
        if not name.endswith(".json"):
            wrong(place, "nobody is known to read this")
        else:
            json.loads(text)
        return
    document = yaml.load(text, Loader)
    document["apiVersion"], document["kind"] = kinds[name]
    # A patch may omit what Istio's template has; otherwise nothing may differ.
    required = {"deployment": {"selector": {}}, "horizontalPodAutoscaler": {"maxReplicas": 1, "scaleTargetRef": {
        "kind": "Deployment", "name": "patched"}}, "podDisruptionBudget": {}}[name]
    document["spec"] = {**required, **document["spec"]}
    resource(place, document)


def snippets(file):
    """The patches of Deployments in a document for people: indented, from `spec:` on."""
    text = (ROOT / file).read_text()
    found = re.findall(r"^    spec:\n(?:(?:     .*)?\n)+", text, re.MULTILINE)
    for number, snippet in enumerate(found, 1):
        patch(f"{file}: patch {number}", "deployment", textwrap.dedent(snippet))
    if not found:
        wrong(file, "has no patch of a Deployment")


def filter_configuration(place, text):
    code, output, errors = run([portcullis(), "check-config", "--assume-secrets", "-"], input=text)
    if code != 0 or ": ok: " not in output:
        wrong(place, f"check-config: {output.strip()} {errors}")
    if "warning:" in output:
        wrong(place, f"check-config warns: {output.strip()}")
