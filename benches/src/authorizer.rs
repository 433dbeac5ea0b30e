//! The server that ext_authz and the Lua filter ask: it says yes to everything, as cheaply as possible.
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Serves as long as the runtime runs.
///
/// # Errors
/// No port is available.
pub async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(address)
}

/// Serves requests without a body, one at a time on a connection, which is how Envoy sends them here.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::with_capacity(8192);
    loop {
        if stream.read_buf(&mut unread).await? == 0 {
            return Ok(());
        }
        if unread.ends_with(b"\r\n\r\n") {
            unread.clear();
            stream.write_all(YES).await?;
        }
    }
}
