//! Where the numbers come from: the machine, which core does what, and how long it does.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde::Serialize;

/// Which core a process gets.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Cores {
    /// The core of the proxy's workers
    #[arg(id = "proxy_core", long = "proxy-core", default_value_t = 0)]
    pub proxy: usize,
    /// The core of everything else: load, service, Redis
    #[arg(id = "load_core", long = "load-core", default_value_t = 1)]
    pub load: usize,
}

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
        let envoy = harness::project().join(".venv/bin/envoy");
        // `…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
        let version = output(Command::new(envoy).arg("--version"));
        let version = version.split_once("version: ").map_or(version.as_str(), |(_, version)| version);
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_megabytes: kilobytes / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            envoy: version.to_owned(),
            commit: output(
                Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(harness::project()),
            ),
            date: output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%MZ"])),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }
}

impl Cores {
    /// Pins this thread, and what it starts, to the core of all that is not measured.
    ///
    /// # Errors
    /// There are no two such cores.
    pub fn take(self) -> anyhow::Result<()> {
        ensure!(self.proxy != self.load, "the proxy and the load need a core each");
        pin(self.load)
    }
}

/// CPU time of all threads of a process so far. Exact only while it is idle: the kernel adds what a thread that runs has
/// used at its next tick.
///
/// # Errors
/// The process is gone, or the kernel does not tell.
pub fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0u64;
    for task in tasks(process)? {
        // Run time, wait time, slices.
        let path = format!("/proc/{process}/task/{task}/schedstat");
        let line = std::fs::read_to_string(path).context("this kernel has no schedstat")?;
        let spent = line.split(' ').next().unwrap_or_default();
        nanoseconds += spent.parse::<u64>().with_context(|| format!("not a schedstat: {line}"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Moves all threads of a process, and those that they start, to a core.
///
/// # Errors
/// There is no such process or core.
pub fn move_to(process: u32, core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    for task in tasks(process)? {
        sched_setaffinity(Pid::from_raw(task), &cores).with_context(|| format!("core {core} cannot be had"))?;
    }
    Ok(())
}

fn tasks(process: u32) -> anyhow::Result<Vec<i32>> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).context("a process is gone")?;
    tasks.map(|task| Ok(task?.file_name().to_string_lossy().parse()?)).collect()
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
