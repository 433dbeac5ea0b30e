"""Links in Markdown: the file is there, and the heading in it."""
import re

from .common import ROOT, run, wrong

LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|^(?:    |\t)[^\n]*$", re.MULTILINE | re.DOTALL)


def pages():
    """What git knows, or would take."""
    code, output, _ = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"])
    return [name for name in output.splitlines() if (ROOT / name).is_file()] if code == 0 else []


def links(text):
    """Targets as they stand there, outside code."""
    text = re.sub(r"`[^`\n]*`", "", re.sub(CODE, "", text))
    return [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def anchors(text):
    """As GitHub and mdBook name headings."""
    found, seen = set(), {}
    for head in re.findall(r"^#{1,6} +(.*?) *$", re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE):
        head = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)
        name = re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
        again = seen.get(name, 0)
        seen[name] = again + 1
        found.add(f"{name}-{again}" if again else name)
    return found


# Templates of generated pages, whose links count from docs/.
TEMPLATES = "cli/src/docs/"
# scripts/site writes it, and checks the links of the summary.
SUMMARY = "docs/SUMMARY.md"


def check_links():
    for page in pages():
        if page.startswith(TEMPLATES) or page == SUMMARY:
            continue
        text = (ROOT / page).read_text()
        for target in links(text):
            path, _, anchor = target.partition("#")
            file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            if not file.exists():
                wrong(page, f"links to {target}, which is not there")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                wrong(page, f"links to {target}, and there is no such heading")


def tests_named(page):
    """Tests and tables of cases that a page names are there."""
    sources = "".join(file.read_text() for file in sorted((ROOT / "tests/tests/e2e").rglob("*.rs")))
    named = re.findall(r"`(?:\w+::)+(\w+)`", (ROOT / page).read_text())
    for name in named:
        if f"fn {name}(" not in sources:
            wrong(page, f"names the test {name}, which is not there")
    for file in re.findall(r"\btests/cases/cases/\w+\.yaml", (ROOT / page).read_text()):
        if not (ROOT / file).exists():
            wrong(page, f"names {file}, which is not there")
    if not named:
        wrong(page, "names no test")


def every_code(page):
    """A page about fault codes has all of them."""
    codes = re.findall(r"^\| \[`([A-Z_]+)`\]", (ROOT / "docs/faults.md").read_text(), re.MULTILINE)
    text = (ROOT / page).read_text()
    for code in codes:
        if code not in text:
            wrong(page, f"leaves out {code}")
    if not codes:
        wrong("docs/faults.md", "has no codes")


def configurations(page, check):
    """The filter's configurations in a page."""
    found = re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    for text in found:
        check(page, text)
    if not found:
        wrong(page, "has no configuration")
