"""Bootstraps of envoy/, loaded by the real Envoy with the real filter in it."""
import json
import os
import re
import tempfile
from pathlib import Path

import yaml

from .common import BIN, MODULES, ROOT, Loader, run, wrong
from .kubernetes import filter_configuration

SECRET = "a-shared-secret-of-the-checks-long-enough"


def refusal(bootstrap, secret=SECRET):
    """Envoy's reason not to start from this text, or None. It loads the filter and its document, and opens no port."""
    environment = {**os.environ, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(MODULES)}
    environment.pop("PORTCULLIS_SECRET", None)
    if secret:
        environment["PORTCULLIS_SECRET"] = secret
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "envoy.yaml"
        path.write_text(bootstrap)
        code, output, errors = run(
            [BIN / "envoy", "--mode", "validate", "--config-path", path, "--log-level", "error"], env=environment
        )
    return None if code == 0 else f"{output} {errors}"


def filled(text, document):
    """A file with ${NAME} in it as the tests fill it in: addresses of nobody, and this document for the filter."""
    values = {
        "LISTEN_ADDRESS": "127.0.0.1", "LISTEN_PORT": 0, "ADMIN_PORT": 0,
        **{f"{name}_ADDRESS": "127.0.0.1" for name in ("UPSTREAM", "SERVICE", "IDP")},
        **{f"{name}_PORT": 9 for name in ("UPSTREAM", "SERVICE", "IDP")},
        "WASM": str(ROOT / "dist/portcullis.wasm"), "SECRET_ENV": ["PORTCULLIS_SECRET"],
        "FILTER_CONFIG": json.dumps(document),
    }
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\$\{(\w+)\}", lambda name: json.dumps(values[name[1]]), "\n".join(lines))


def bootstraps_to_fill(files):
    """Envoy takes each with envoy/filter.yaml, and not with an error in it: so the filter was there and read it."""
    document = yaml.load((ROOT / "envoy/filter.yaml").read_text(), Loader)
    bad = {**document, "rulse": []}
    for file in files:
        text = (ROOT / file).read_text()
        bootstrap = filled(text, document)
        error = refusal(bootstrap)
        if error:
            wrong(file, f"Envoy refuses it: {error[-600:]}")
        elif "rulse" not in (refusal(filled(text, bad)) or ""):
            wrong(file, "Envoy takes it with a document that is wrong")
        elif not refusal(bootstrap, secret=None):
            wrong(file, "Envoy takes it without the filter's secret")
        filter_configuration(file, bootstrap)


def around(filter_, clusters=(), is_off=False):
    """A bootstrap with this HTTP filter. If it is off, the route enables it."""
    extensions = "type.googleapis.com/envoy.extensions.filters"
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 503}}
    if is_off:
        on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
        route["typed_per_filter_config"] = {"portcullis": on}
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "portcullis", "disabled": is_off, "typed_config": filter_},
            {"name": "router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}},
        ],
    }
    return {"static_resources": {"clusters": list(clusters), "listeners": [{
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }]}}
