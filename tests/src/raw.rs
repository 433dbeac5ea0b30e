//! An HTTP/1.1 server whose replies are raw bytes, for replies that a correct server never sends.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The reply to one request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Waited before anything is sent.
    pub delay: Duration,
    pub bytes: Vec<u8>,
    /// Whether the connection ends after the bytes.
    pub closes: bool,
}

/// Stops, its connections too, when it is dropped.
pub struct RawServer {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Reply {
    /// A response with its content-length.
    pub fn http(status: u16, body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        Self { bytes, ..Self::default() }
    }

    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub fn closing(self) -> Self {
        Self { closes: true, ..self }
    }
}

impl RawServer {
    /// `reply` gets a request's body.
    pub async fn start(reply: impl Fn(&[u8]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let (count, reply) = (Arc::clone(&requests), Arc::new(reply));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, Arc::clone(&reply), Arc::clone(&count)));
            }
        });
        Self { address, requests, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have come.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, reply: Arc<impl Fn(&[u8]) -> Reply>, count: Arc<AtomicU64>) -> Option<()> {
    let mut unread = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            fill(&mut stream, &mut unread).await?;
        };
        let text = String::from_utf8_lossy(&unread[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let end = head + length.unwrap_or(0);
        while unread.len() < end {
            fill(&mut stream, &mut unread).await?;
        }
        count.fetch_add(1, Ordering::SeqCst);
        let reply = reply(&unread[head..end]);
        unread.drain(..end);
        tokio::time::sleep(reply.delay).await;
        stream.write_all(&reply.bytes).await.ok()?;
        if reply.closes {
            return None;
        }
    }
}

async fn fill(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(unread).await.ok()? > 0).then_some(())
}
