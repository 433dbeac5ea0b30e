//! Nothing that a client sends or does ends a virtual machine, leaks out of one, or slips past it.
use bytes::Bytes;
use harness::mesh::{CHECK_TIMEOUT, ISSUER, claims, claims_with};
use harness::{Connection, H2Connection, Mesh, MeshOptions, RawServer, Reply, Request, wait_until};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mint::SigningKey;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::check::Asked;
use wire::{Answer, Retention, Secret};

mod bad_input;
mod waiting;

/// Envoy's counters of its virtual machines: created, active, and reloaded after a trap.
async fn machines(mesh: &Mesh) -> Vec<(String, u64)> {
    mesh.envoy.stats("wasm.").await.into_iter().filter(|(name, _)| !name.starts_with("wasmcustom.")).collect()
}

/// The same machines as before, all workers serving, and no trap in the log.
async fn is_unharmed(mesh: &mut Mesh, before: &[(String, u64)]) {
    assert_eq!(machines(mesh).await, before);
    assert!(before.iter().any(|(name, made)| name == "wasm.envoy.wasm.runtime.v8.created" && *made > 2), "{before:?}");
    let token = mesh.token();
    for mut connection in mesh.connections(2).await {
        let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let log = mesh.envoy_log().to_ascii_lowercase();
    for bad in [
        "trap",
        "panicked",
        "wasm failed",
        "function: proxy_",
        "uncaught",
        "unreachable",
        "[critical]",
        "called back within",
    ] {
        let line = log.lines().find(|line| line.contains(bad));
        assert!(line.is_none(), "{}", line.unwrap_or_default());
    }
}
