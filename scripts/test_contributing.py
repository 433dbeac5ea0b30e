"""Checks that every file which CONTRIBUTING.md, SECURITY.md and docs/glossary.md name is there. Run by `make arrows`."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).parent.parent
# A path of ours: in backticks with a slash and no space, or the target of a link.
NAMED = re.compile(r"`([\w.-]+(?:/[\w.-]+)+)`|\]\(([^)#:]+)\)")


class Contributing(unittest.TestCase):
    def test_every_path_is_there(self):
        for page in ("CONTRIBUTING.md", "SECURITY.md", "docs/glossary.md"):
            text = (ROOT / page).read_text(encoding="utf-8")
            for quoted, linked in NAMED.findall(text):
                path = ROOT / quoted if quoted else (ROOT / page).parent / linked
                self.assertTrue(path.exists(), f"{page} names {quoted or linked}")

    def test_each_question_has_one_file(self):
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| (.+\?) \| (.+) \|$", text, re.MULTILINE)
        self.assertGreaterEqual(len(rows), 15)
        for question, answer in rows:
            self.assertTrue((ROOT / answer.strip("`")).is_file(), f"{question} {answer}")


if __name__ == "__main__":
    unittest.main()
