"""Plants small workspaces and holds scripts/arrows against them. Run by `make arrows`."""
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest

ARROWS = pathlib.Path(__file__).with_name("arrows")
MANIFEST = """
[workspace]
resolver = "3"
members = ["house"]
[workspace.metadata.arrows.crates]
house = []
[workspace.metadata.arrows.layers]
house = ["cellar", "kitchen pantry", "attic"]
"""
PACKAGE = '[package]\nname = "house"\nversion = "0.0.0"\nedition = "2024"\n'
ROOT = "mod attic;\nmod cellar;\nmod kitchen;\nmod pantry;\npub use attic::Roof;\n"
# Allowed as it is: each module uses lower ones, and one of its own layer.
MODULES = {
    "house/src/cellar.rs": "pub struct Wine;\npub mod barrel { pub struct Barrel; }\n",
    "house/src/pantry.rs": "pub struct Shelf(pub crate::cellar::Wine);\n",
    "house/src/kitchen.rs": "use crate::{cellar::barrel::{self, Barrel}, pantry::Shelf as Board};\npub fn cook(_: Board, _: Barrel) {}\n",
    "house/src/attic.rs": "pub struct Roof;\nfn over() { let _ = super::kitchen::cook; }\n",
}


class Arrows(unittest.TestCase):
    def arrows(self, manifest=MANIFEST, files=None, **modules):
        """Runs scripts/arrows on the planted workspace with some files changed; returns its complaints."""
        planted = {"Cargo.toml": manifest, "house/Cargo.toml": PACKAGE, "house/src/lib.rs": ROOT} | MODULES
        planted |= {f"house/src/{name}.rs": text for name, text in modules.items()} | (files or {})
        with tempfile.TemporaryDirectory() as folder:
            for name, text in planted.items():
                if text is None:
                    continue
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(textwrap.dedent(text), encoding="utf-8")
            done = subprocess.run([sys.executable, ARROWS], cwd=folder, capture_output=True, text=True, check=False)
        complaints = done.stderr.splitlines()
        self.assertEqual(done.returncode, 1 if complaints else 0, done.stderr)
        self.assertTrue(all(line.startswith("arrows: ") for line in complaints), done.stderr)
        return complaints

    def complains(self, complaints, *wanted):
        self.assertEqual(len(complaints), len(wanted), complaints)
        for complaint, parts in zip(complaints, wanted):
            for part in parts if isinstance(parts, tuple) else (parts,):
                self.assertIn(part, complaint)

    def test_lower_layers_and_neighbours_may_be_used(self):
        self.complains(self.arrows())

    def test_an_upward_import_is_refused_with_its_place(self):
        for text in (
            "\n\nuse crate::attic::Roof;",
            "\n\npub use crate::attic::Roof;",
            "\n\nuse crate::{attic, cellar::Wine as Bottle};",
            "\n\nuse super::{attic::{Roof}};",
            "mod a { mod b {\nuse super::super::super::attic::Roof; } }",
            "\n\npub(in crate::cellar) fn f() -> crate::attic::Roof { todo!() }",
            "\n\nmacro_rules! roof { () => { $crate::attic::Roof } }",
            "fn f<'a>(_: &'a str) -> char { 'a' }\n\nfn g() { crate::attic::over::<u8>() }",
        ):
            with self.subTest(text):
                complaints = self.arrows(cellar=MODULES["house/src/cellar.rs"] + text)
                self.complains(complaints, ("house: cellar -> attic goes up", "house/src/cellar.rs:", "crate::attic"))
        complaints = self.arrows(cellar="\nuse crate::attic::Roof;\npub struct Wine; pub mod barrel { pub struct Barrel; }")
        self.complains(complaints, "house/src/cellar.rs:2: crate::attic::Roof")

    def test_a_name_that_the_root_passes_on_counts_as_its_module(self):
        complaints = self.arrows(cellar=MODULES["house/src/cellar.rs"] + "use crate::Roof;")
        self.complains(complaints, "cellar -> attic goes up")

    def test_an_exported_macro_counts_as_the_module_that_has_it(self):
        roof = "pub struct Roof;\n#[macro_export]\nmacro_rules! roof { () => { $crate::attic::Roof } }\nfn f() { crate::roof!() }"
        self.complains(self.arrows(attic=roof))
        complaints = self.arrows(attic=roof, pantry="pub struct Shelf;\nfn f() { crate::roof!() }")
        self.complains(complaints, "pantry -> attic goes up")

    def test_what_the_root_itself_defines_is_nobodys(self):
        complaints = self.arrows(lib=ROOT + "pub const FLOORS: u8 = 3;", attic="use crate::FLOORS; pub struct Roof;")
        self.complains(complaints, "house: attic uses the root of its crate")
        complaints = self.arrows(attic="use super::*; pub struct Roof;")
        self.complains(complaints, "house: attic uses the root of its crate")

    def test_a_circle_within_a_layer_is_refused(self):
        complaints = self.arrows(pantry="pub struct Shelf; use crate::kitchen::cook;")
        self.complains(complaints, ("house: a circle: kitchen -> pantry -> kitchen", "kitchen.rs:1", "pantry.rs:1"))

    def test_a_circle_is_refused_where_no_table_says_anything(self):
        inner = "mod a; mod b; mod c; pub struct Roof;"
        files = {"house/src/attic/a.rs": "use super::b;", "house/src/attic/b.rs": "use crate::attic::c::*;"}
        closed = {"house/src/attic/c.rs": "fn f() -> super::a::A {}"}
        self.complains(self.arrows(attic=inner, files=files | {"house/src/attic/c.rs": ""}))
        complaints = self.arrows(attic=inner, files=files | closed)
        self.complains(complaints, "house::attic: a circle: a -> b -> c -> a")

    def test_modules_of_a_folder_may_have_layers_of_their_own(self):
        manifest = MANIFEST + '"house::attic" = ["a", "b"]\n'
        files = {"house/src/attic/mod.rs": "mod a; mod b; pub struct Roof;", "house/src/attic/a.rs": "use super::b::B;"}
        files |= {"house/src/attic/b.rs": "", "house/src/attic.rs": None}
        self.complains(self.arrows(manifest, files=files), "house::attic: a -> b goes up")

    def test_comments_strings_and_tests_are_left_out(self):
        self.complains(self.arrows(cellar=MODULES["house/src/cellar.rs"] + r'''
            // use crate::attic::Roof;
            /* use crate::attic::Roof; /* nested */ use crate::attic::Roof; */
            //! [`crate::attic::Roof`]
            const A: &str = "use crate::attic::Roof; \" crate::attic";
            const B: &str = r#"crate::attic "quoted" crate::attic"#;
            const C: [u8; 2] = [b'"', b'\''];
            const D: &[u8] = br"\"; const E: char = '"'; const F: char = '\u{22}';
            #[cfg(test)]
            use crate::attic::Roof;
            #[cfg(test)]
            #[allow(dead_code)]
            pub(crate) fn two<A, B>(a: A, b: B) -> crate::attic::Roof { crate::attic::Roof }
            struct S { #[cfg(test)] roof: crate::attic::Roof, wine: u8 }
            #[cfg(all(test, unix))]
            mod tests { use crate::attic::Roof; }
            #[cfg(test)]
            mod more_tests;
        ''', files={"house/src/cellar/more_tests.rs": "use crate::attic::Roof;"}))

    def test_code_that_is_not_for_tests_alone_is_read(self):
        for attribute in ("#[cfg(not(test))]", "#[cfg(any(test, unix))]", '#[cfg(feature = "test")]'):
            with self.subTest(attribute):
                complaints = self.arrows(cellar=f"{MODULES['house/src/cellar.rs']}{attribute}\nuse crate::attic::Roof;")
                self.complains(complaints, "cellar -> attic goes up")
        after = "#[cfg(test)] use crate::attic::Roof; #[cfg(test)] mod t { } fn f() -> crate::attic::Roof {}"
        self.complains(self.arrows(cellar=MODULES["house/src/cellar.rs"] + after), "cellar -> attic goes up")

    def test_the_table_and_the_modules_are_the_same(self):
        complaints = self.arrows(lib=ROOT + "mod cupboard;", cupboard="")
        self.complains(complaints, "house: cupboard is in no layer")
        complaints = self.arrows(MANIFEST.replace("pantry", "pantry shed"))
        self.complains(complaints, "house: the layer has shed, the code has not")
        complaints = self.arrows(MANIFEST + '"house::garden" = ["tree"]\n')
        self.complains(complaints, "house::garden: layers of a module that does not exist")

    def test_crates_are_used_as_their_table_says(self):
        manifest = MANIFEST.replace('["house"]', '["house", "yard"]')
        yard = {"yard/Cargo.toml": PACKAGE.replace("house", "yard"), "yard/src/lib.rs": ""}
        self.complains(self.arrows(manifest, files=yard), "yard: not in the table of crates")
        manifest = manifest.replace("house = []", "house = []\nyard = []")
        self.complains(self.arrows(manifest, files=yard))
        yard["yard/Cargo.toml"] += '[dependencies]\nhouse = { path = "../house" }\n'
        self.complains(self.arrows(manifest, files=yard), "yard -> house (normal dependency in ")
        self.complains(self.arrows(manifest.replace("yard = []", 'yard = ["house"]'), files=yard))
        yard["yard/Cargo.toml"] = yard["yard/Cargo.toml"].replace("[dep", "[dev-dep")
        self.complains(self.arrows(manifest, files=yard), "yard -> house (dev dependency in ")
        with_dev = manifest.replace("[workspace.metadata.arrows.crates]", '[workspace.metadata.arrows]\ndev = ["house"]\n[workspace.metadata.arrows.crates]')
        self.complains(self.arrows(with_dev, files=yard))


if __name__ == "__main__":
    unittest.main()
