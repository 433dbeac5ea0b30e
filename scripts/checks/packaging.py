"""packaging/: the unit by systemd, the profile by AppArmor's parser, the configuration file by the service. Files that are
no YAML; .github/workflows by actionlint."""
import shutil
import tempfile
from pathlib import Path

from .common import BIN, ROOT, load, portcullis, run, wrong


def packaging(files):
    for file in files:
        load(file)
    service_file()
    unit()
    profile()


def service_file():
    """Every option that the example sets, with secrets that are there."""
    file = "packaging/serve.toml"
    with tempfile.TemporaryDirectory() as directory:
        secrets = []
        for name in ("secret-file", "admin-token-file"):
            secret = Path(directory) / name
            secret.write_text(name.ljust(32, "x"))
            secret.chmod(0o600)
            secrets += [f"--{name}", secret]
        code, output, errors = run([portcullis(), "serve", "--config", file, "--check", *secrets])
    if code != 0 or output.strip() != "ok":
        wrong(file, f"portcullis does not take it: {errors}")


def unit():
    file = "packaging/systemd/portcullis.service"
    if not shutil.which("systemd-analyze"):
        print(f"check-files: no systemd-analyze here: {file} is not checked")
        return
    with tempfile.TemporaryDirectory() as directory:
        # The program must be there.
        program = Path(directory) / "portcullis"
        program.symlink_to("/bin/true")
        copy = Path(directory) / "portcullis.service"
        copy.write_text((ROOT / file).read_text().replace("/usr/bin/portcullis", str(program)))
        code, output, errors = run(["systemd-analyze", "verify", "--man=no", copy])
    if code != 0 or output or errors:
        wrong(file, f"systemd-analyze verify: {output} {errors}")


def profile():
    file = "packaging/apparmor/portcullis"
    parser = BIN / "apparmor_parser"
    if not parser.exists():
        print(f"check-files: no apparmor_parser here: {file} is not checked")
        return
    code, output, errors = run([parser, file])
    if code != 0:
        wrong(file, f"apparmor_parser: {output} {errors}")


def workflows(files):
    for file in files:
        load(file)
    if not (BIN / "actionlint").exists():
        print("check-files: no actionlint here: .github/workflows is not checked")
        return
    code, output, errors = run([BIN / "actionlint", *files])
    if code != 0:
        wrong(".github/workflows", f"actionlint: {output} {errors}")
