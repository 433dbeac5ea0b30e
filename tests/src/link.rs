//! A TCP proxy between two parts of a stack that can be cut, held or slowed. Its backends take turns, as behind the address
//! of a Kubernetes service.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Connections are closed, also new ones.
    Cut,
    /// Nothing is carried, and nothing is closed. What was sent arrives later.
    Held,
    /// Each piece of up to 16 KB arrives later by this.
    Slow(Duration),
}

/// Stops, its connections too, when it is dropped.
pub struct Link {
    address: SocketAddr,
    line: watch::Sender<Line>,
    backends: watch::Sender<Vec<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Link {
    /// # Panics
    /// There is no port.
    pub async fn start(backends: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (line, backends) = (watch::Sender::new(Line::Open), watch::Sender::new(backends));
        let task = tokio::spawn(accept(listener, line.subscribe(), backends.subscribe()));
        Self { address, line, backends, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For connections that come.
    pub fn lead_to(&self, backends: Vec<SocketAddr>) {
        self.backends.send_replace(backends);
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Line::Cut);
    }
}

async fn accept(listener: TcpListener, line: watch::Receiver<Line>, backends: watch::Receiver<Vec<SocketAddr>>) {
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if *line.borrow() == Line::Cut {
            continue;
        }
        let (backends, turn, line) = (backends.borrow().clone(), Arc::clone(&turn), line.clone());
        tokio::spawn(async move {
            for _ in 0..backends.len() {
                let at = turn.fetch_add(1, Ordering::Relaxed) % backends.len();
                if let Ok(server) = TcpStream::connect(backends[at]).await {
                    return carry(client, server, line).await;
                }
            }
        });
    }
}

async fn carry(client: TcpStream, server: TcpStream, line: watch::Receiver<Line>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = line.clone();
    // One direction that ends, ends both: nothing here needs half a connection.
    tokio::select! {
        () = copy(from_client, to_server, line.clone()) => {}
        () = copy(from_server, to_client, line) => {}
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let Ok(now) = line.wait_for(|line| *line != Line::Held).await.map(|line| *line) else { return };
        if let Line::Slow(by) = now {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
