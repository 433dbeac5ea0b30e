//! The upstream of the mesh: answers 200 to everything, with what it received.
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub struct Upstream {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Upstream {
    pub fn stop(self) {
        self.serving.abort();
    }
}

pub async fn start() -> std::io::Result<Upstream> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, Router::new().fallback(echo)).await;
    });
    Ok(Upstream { address, serving })
}

async fn echo(request: Request) -> Bytes {
    let (parts, _) = request.into_parts();
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    format!("{}\n", json!({ "method": parts.method.as_str(), "path": parts.uri.to_string(), "headers": headers }))
        .into()
}
