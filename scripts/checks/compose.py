"""envoy/compose.yaml: Compose's own schema, compose itself, and what this mesh promises of each container."""
import json
import os
import re

from .common import BIN, ROOT, load, run, wrong
from .kubernetes import validate


def composer():
    """Compose itself, where it is: docker's, or what scripts/checkers has found."""
    if (BIN / "docker-compose").exists():
        return [BIN / "docker-compose"]
    try:
        return ["docker", "compose"] if run(["docker", "compose", "version"])[0] == 0 else None
    except FileNotFoundError:
        return None


def composed(text):
    """What compose says against a file with this text; it reads what the file refers to, and starts nothing."""
    code, _, errors = run(
        [*composer(), "--project-directory", "envoy", "--file", "-", "--profile", "*", "config", "--quiet"], input=text
    )
    return errors or f"exit code {code}" if code != 0 else None


def compose(files):
    """Compose's own schema, compose itself, and what this mesh promises of each container."""
    for file in files:
        [document] = load(file) or [None]
        if document is None:
            continue
        if composer():
            text = (ROOT / file).read_text()
            error = composed(text)
            if error:
                wrong(file, f"docker compose config: {error}")
            # A service that depends on one that does not exist.
            if not composed(text.replace("sessions-1: { condition", "nobody: { condition", 1)):
                wrong(file, "docker compose config takes what is wrong")
        for name, service in document["services"].items():
            # A name without a version can be another program tomorrow. Images built here need none.
            if "build" not in service and not re.search(r":v?\d+\.\d+\.\d+", service["image"]):
                wrong(f"{file}: {name}", f"the image {service['image']} is not of one version")
        validate(file, document, json.loads((ROOT / "schemas/compose-spec.json").read_text()))
        for name, service in document["services"].items():
            place = f"{file}: {name}"
            limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
            for what, holds in {
                "read-only file system": service.get("read_only") is True,
                "user that is not root": str(service.get("user", "0")).split(":")[0] != "0",
                "limit of memory, CPU and processes": {"memory", "cpus", "pids"} <= limits.keys(),
                "cap_drop of ALL": service.get("cap_drop") == ["ALL"],
                "no-new-privileges": "no-new-privileges:true" in service.get("security_opt", []),
                "health check": "healthcheck" in service or service.get("profiles") == ["once"],
                "ports on loopback alone": all(str(p).startswith("127.0.0.1:") for p in service.get("ports", [])),
                "mount from a volume alone": all(not v.startswith((".", "/", "~")) for v in service.get("volumes", [])),
            }.items():
                if not holds:
                    wrong(place, f"has no {what}")
            known = set(document["secrets"])
            for secret in set(service.get("secrets", [])) - known:
                wrong(place, f"the secret {secret} is not defined")
            for other in service.get("depends_on", {}):
                if other not in document["services"]:
                    wrong(place, f"waits for {other}, which is not there")
        for kind in ("configs", "secrets"):
            for name, one in document[kind].items():
                path = os.path.normpath(f"{os.path.dirname(file)}/{one['file']}")
                if not path.startswith("envoy/"):
                    wrong(file, f"{name} is mounted from outside the folder")
                if kind == "configs" and not (ROOT / path).exists():
                    wrong(file, f"{path} is not there")
