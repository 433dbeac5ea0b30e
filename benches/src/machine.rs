//! Where the numbers come from: the machine, and which core does what.
use std::process::Command;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_megabytes: u64,
    pub kernel: String,
    pub envoy: String,
    pub commit: String,
    /// UTC.
    pub date: String,
    /// Of the last minute, when the run began: above 0.5 or so, others were at work.
    pub load_average: f64,
}

impl Machine {
    pub fn describe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let envoy = tests::project().join(".venv/bin/envoy");
        // `…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
        let version = output(Command::new(envoy).arg("--version"));
        let version = version.split_once("version: ").map_or(version.as_str(), |(_, version)| version);
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_megabytes: kilobytes / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            envoy: version.to_owned(),
            commit: output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(tests::project())),
            date: output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%MZ"])),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }
}

/// Pins this thread, and with it all threads and processes that it starts from now on.
///
/// # Errors
/// There is no such core, or this process may not use it.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("core {core} cannot be had: two cores are needed"))
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
