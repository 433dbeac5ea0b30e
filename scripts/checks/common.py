"""Files, their content, and what is wrong with them."""
import fnmatch
import json
import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / ".venv/bin"
# Where the dynamic module is, as in scripts/image.
MODULES = Path(os.environ.get("PORTCULLIS_MODULES", ROOT / "dist"))
problems = []


class Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML's reader would settle in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"`{key}` is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def tagged(loader, _, node):
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else loader.construct_scalar(node)


# The cases use `!pass` and `!refuse`.
Loader.add_multi_constructor("!", tagged)


def wrong(file, what):
    problems.append(f"{file}: {what}")


def shipped():
    """What git knows, or would take; without git, what lies here."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        files = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    else:
        out = {"target", "dist", ".venv", ".stack", ".git", "fuzz/target", "istio/build", "istio/build-native", "envoy/secrets",
               "envoy/gateway/build", "envoy/gateway/build-native"}
        files = []
        for directory, below, names in os.walk(ROOT):
            here = os.path.relpath(directory, ROOT)
            below[:] = [name for name in below if os.path.normpath(f"{here}/{name}") not in out]
            files += [os.path.normpath(f"{here}/{name}") for name in names]
    wanted = ("*.yaml", "*.yml", "*.json", "*Dockerfile", "*Dockerfile.*", "*.Dockerfile")
    return sorted(name for name in files if any(fnmatch.fnmatch(name, pattern) for pattern in wanted))


def run(arguments, **more):
    done = subprocess.run([str(argument) for argument in arguments], cwd=ROOT, capture_output=True, text=True, **more)
    return done.returncode, done.stdout, done.stderr.strip()


def load(file):
    """All documents of a file; what cannot be read is noted, and there are none."""
    text = (ROOT / file).read_text()
    try:
        if file.endswith(".json"):
            return [json.loads(text, object_pairs_hook=pairs)]
        return [document for document in yaml.load_all(text, Loader) if document is not None]
    except (yaml.YAMLError, ValueError) as error:
        wrong(file, " ".join(str(error).split()))
        return []


def pairs(members):
    if len({name for name, _ in members}) < len(members):
        raise ValueError("a member is duplicate")
    return dict(members)


def portcullis():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("PORTCULLIS", target / "debug/portcullis")
