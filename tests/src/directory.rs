//! A stack's directory: logs, configurations, Redis's files. Removed at the end, unless the test failed.
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Directory {
    path: PathBuf,
    kept: bool,
}

impl Directory {
    /// `name` is the test's. Declare it before the processes that write into it, so that it is dropped after them.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root().join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, kept: false }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it there at the end, as after a panic.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Writes a file for a process to read, with no access for others.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path.join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_ref()))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.kept || std::thread::panicking() || std::env::var_os("KEEP_STACKS").is_some() {
            eprintln!("logs and configurations: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn root() -> PathBuf {
    crate::built().parent().map_or_else(std::env::temp_dir, Path::to_path_buf).join("stacks")
}
