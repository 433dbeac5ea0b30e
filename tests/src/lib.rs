//! The harness of the end-to-end tests: a stack of real processes for each test, and clients that may misbehave.
//!
//! Each piece starts on ports from the kernel, stops when it is dropped, and writes its log into the stack's
//! directory, which stays when the test fails. Nothing here knows the decisions of the filter. A harness that
//! cannot do its work panics with the reason and the log.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests: what cannot be done ends the process"
)]
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod certificate;
mod client;
mod cluster;
mod compose;
mod directory;
mod envoy;
pub mod image;
mod issuers;
mod link;
pub mod mesh;
mod native_filter;
mod process;
mod raw;
mod redis;
mod service;
mod soft_hsm;
mod template;
mod ticking;
mod turn;
mod upstream;

pub use certificate::{Authority, certificate};
pub use client::{Connection, H2Connection, Request, Response, exchange, extended_connect};
pub use cluster::{Cluster, NODE_TIMEOUT, Sentinels};
pub use compose::Compose;
pub use directory::Directory;
pub use envoy::{Envoy, EnvoyOptions, FilterHost, HotRestart, ServiceTls, Tls};
pub use link::{Line, Link};
pub use mesh::{Mesh, MeshOptions};
pub use process::Process;
pub use raw::{RawServer, Reply};
pub use redis::Redis;
pub use service::{Service, ServiceOptions};
pub use soft_hsm::SoftHsm;
pub use template::render;
pub use ticking::{Form, OpenStream};
pub use turn::under_load;
pub use upstream::{Answer, Seen, Upstream};

/// The longest that a process may take to start. Generous: the machine may be building something else.
pub const START_DEADLINE: Duration = Duration::from_secs(60);

/// The root of the project.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project").to_path_buf()
}

/// Where this build's binaries are: `target/<profile>`, wherever `target` is.
fn built() -> PathBuf {
    let binary = std::env::current_exe().expect("a running binary has a path");
    let directory = binary.parent().expect("a binary lies in a directory");
    // Tests are one level below the other binaries.
    let deps = directory.ends_with("deps").then(|| directory.parent()).flatten();
    deps.unwrap_or(directory).to_path_buf()
}

/// Asks `done` every few milliseconds until it says yes; false when `deadline` passes first.
pub async fn wait_until(deadline: Duration, mut done: impl AsyncFnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done().await {
            return true;
        }
        if start.elapsed() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
