"""scripts/install, with archives of a program that only prints a version."""
import hashlib
import io
import platform
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

INSTALL = Path(__file__).resolve().parent / "install"
MACHINE = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())


class Install(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.files, self.prefix = Path(directory.name) / "files", Path(directory.name) / "prefix"
        self.files.mkdir()

    def archive(self, program="#!/bin/sh\necho portcullis 9.9.9\n", version="9.9.9"):
        name = f"portcullis-{version}-linux-{MACHINE}.tar.gz"
        with tarfile.open(self.files / name, "w:gz") as archive:
            for path, text, mode in (("bin/portcullis", program, 0o755), ("lib/portcullis.wasm", "wasm", 0o644)):
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(text), mode
                archive.addfile(member, io.BytesIO(text.encode()))
        # One that is not here, as in a folder with a part of a release.
        lines = [f"{'0' * 64}  portcullis.wasm", f"{hashlib.sha256((self.files / name).read_bytes()).hexdigest()}  {name}"]
        (self.files / "SHA256SUMS").write_text("\n".join(lines) + "\n")
        return self.files / name

    def install(self):
        return subprocess.run([INSTALL, "--from", self.files, "--prefix", self.prefix], capture_output=True, text=True)

    def refuses(self, said):
        done = self.install()
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(said, done.stderr)
        self.assertFalse(self.prefix.exists())

    def test_what_the_checksums_name_is_installed(self):
        self.archive()
        done = self.install()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("portcullis 9.9.9", done.stdout)
        self.assertTrue((self.prefix / "bin/portcullis").stat().st_mode & 0o100)
        self.assertEqual((self.prefix / "lib/portcullis.wasm").read_text(), "wasm")

    def test_an_archive_that_was_changed_is_refused(self):
        archive = self.archive()
        archive.write_bytes(archive.read_bytes() + b"x")
        self.refuses("is not what SHA256SUMS says")

    def test_an_archive_that_no_checksum_names_is_refused(self):
        self.archive()
        (self.files / "SHA256SUMS").write_text(f"{'0' * 64}  portcullis.wasm\n")
        self.refuses("is not what SHA256SUMS says")

    def test_files_without_checksums_are_refused(self):
        self.archive()
        (self.files / "SHA256SUMS").unlink()
        self.refuses("no SHA256SUMS")

    def test_a_program_that_does_not_run_here_is_refused(self):
        self.archive(program="\x7fELF is something else")
        self.refuses("does not run on this machine")

    def test_an_empty_folder_and_two_versions_are_refused(self):
        self.refuses("no portcullis-VERSION-linux")
        self.archive()
        self.archive(version="9.9.8")
        self.refuses("several versions")

    def test_wrong_usage_is_2(self):
        done = subprocess.run([INSTALL, "--form", "x"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--from DIRECTORY", done.stderr)


if __name__ == "__main__":
    unittest.main()
