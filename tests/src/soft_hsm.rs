//! SoftHSM with tokens of a test's own, which can be taken away and come back.
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Directory;

/// Where distributions put it.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

pub struct SoftHsm {
    configuration: PathBuf,
    tokens: PathBuf,
    module: &'static str,
    /// Where its files are.
    faulty: Option<PathBuf>,
}

impl SoftHsm {
    /// # Panics
    /// It is not installed: scripts/checkers does that.
    pub fn new(directory: &Directory) -> Self {
        let module = MODULES.iter().find(|path| Path::new(path).exists());
        let module = module.expect("libsofthsm2.so must be installed: scripts/checkers");
        let tokens = directory.path().join("tokens");
        std::fs::create_dir_all(&tokens).expect("the stack's directory takes another");
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        let configuration = directory.write("softhsm2.conf", text);
        Self { configuration, tokens, module, faulty: None }
    }

    /// For each process that shall see these tokens.
    pub fn environment(&self) -> Vec<(String, String)> {
        let configuration = ("SOFTHSM2_CONF".to_owned(), self.configuration.display().to_string());
        let of = |directory: &PathBuf| {
            let in_it = |name: &str, file: &str| (name.to_owned(), directory.join(file).display().to_string());
            let real = ("FAULTY_MODULE".to_owned(), self.module.to_owned());
            vec![real, in_it("FAULTY_SAYS", "says"), in_it("FAULTY_LOG", "calls")]
        };
        [vec![configuration], self.faulty.as_ref().map(of).unwrap_or_default()].concat()
    }

    /// The module that the service loads.
    pub fn module(&self) -> String {
        let faulty = self.faulty.as_ref().map(|directory| directory.join("libfaulty.so").display().to_string());
        faulty.unwrap_or_else(|| self.module.to_owned())
    }

    /// Keys as the binary `token` (this crate's) makes them, which is at `maker`.
    pub fn make(&self, maker: &str, label: &str, pin: &str, keys: &[&str]) {
        let made = Command::new(maker).args([self.module, label, pin]).args(keys).envs(self.environment()).output();
        let made = made.expect("the binary runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Puts a module between the service and SoftHSM that does what its file says: see `faulty_module.c`, built here with
    /// the C compiler that our dependencies need, too.
    pub fn make_faulty(&mut self, directory: &Directory) {
        let source = directory.write("faulty_module.c", include_str!("faulty_module.c"));
        let module = directory.path().join("libfaulty.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut command = Command::new(compiler);
        command.args(["-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&module).arg(source).arg("-ldl");
        let built = command.output().expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        self.faulty = Some(directory.path().to_path_buf());
        self.says("");
    }

    /// `hang`, `fail`, `lie`, `final try`, or nothing: from now on.
    pub fn says(&self, word: &str) {
        let directory = self.faulty.as_ref().expect("it is faulty");
        std::fs::write(directory.join("says.new"), word).expect("the stack's directory takes files");
        std::fs::rename(directory.join("says.new"), directory.join("says")).expect("all or nothing of it");
    }

    /// How often it was called so: a letter of `faulty_module.c`.
    pub fn calls(&self, letter: char) -> usize {
        let directory = self.faulty.as_ref().expect("it is faulty");
        let log = std::fs::read_to_string(directory.join("calls")).unwrap_or_default();
        log.chars().filter(|call| *call == letter).count()
    }

    /// Takes all tokens out, as if their device were gone.
    pub fn take_away(&self) {
        let away = self.tokens.with_extension("away");
        std::fs::rename(&self.tokens, away).expect("tokens can be moved");
        std::fs::create_dir(&self.tokens).expect("an empty directory in their place");
    }

    pub fn bring_back(&self) {
        std::fs::remove_dir_all(&self.tokens).expect("the empty directory");
        std::fs::rename(self.tokens.with_extension("away"), &self.tokens).expect("tokens can be moved back");
    }
}
