//! HTTP clients: one that sends any bytes over HTTP/1.1, and one that speaks HTTP/2.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest that any answer may take; nothing that is tested should come near it.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest that the answer to an upgrade may take.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(5);

/// A request that may be wrong: nothing is checked, added (but `host`, where it is not given) or put in order.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Over HTTP/2.
    pub trailers: Vec<(String, String)>,
    /// From the first byte sent to the last received.
    pub took: Duration,
}

/// One HTTP/1.1 connection, kept alive.
pub struct Connection {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// One HTTP/2 connection with prior knowledge; requests on it may run at once.
#[derive(Clone)]
pub struct H2Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
}

/// One request on a connection of its own.
///
/// # Errors
/// No connection, or no whole response.
pub async fn exchange(address: SocketAddr, request: &Request) -> io::Result<Response> {
    Connection::open(address).await?.send(request).await
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// `authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// With its content-length.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("content-length", length)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            bytes.extend_from_slice(b"host: test.example\r\n");
        }
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Response {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The values of a header that the echoing upstream received; `name` in lower case.
    pub fn upstream_saw(&self, name: &str) -> Vec<String> {
        let echo = self.json();
        let pairs = echo["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = pairs.iter().filter(|pair| pair[0] == name);
        named.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
    }
}

impl Connection {
    /// # Errors
    /// The connection is refused.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Box::new(stream), unread: Vec::new() })
    }

    /// Over TLS 1.3 and nothing else, to a server whose certificate for its address `authority` signed (PEM).
    ///
    /// # Errors
    /// The connection is refused, or the handshake fails.
    pub async fn open_tls(address: SocketAddr, authority: &Path) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TlsConnector::from(Arc::new(config)).connect(address.ip().into(), stream).await?;
        Ok(Self { stream: Box::new(stream), unread: Vec::new() })
    }

    /// # Errors
    /// The connection broke, or the bytes are not a response.
    pub async fn send(&mut self, request: &Request) -> io::Result<Response> {
        self.send_bytes(&request.to_bytes(), request.method == "HEAD").await
    }

    /// Sends bytes as they are and reads one response. `no_body`: it is to HEAD, and so has none.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send_bytes(&mut self, bytes: &[u8], no_body: bool) -> io::Result<Response> {
        tokio::time::timeout(DEADLINE, async {
            let start = Instant::now();
            self.stream.write_all(bytes).await?;
            let (status, headers) = loop {
                let (status, headers) = self.read_head().await?;
                // 100 Continue and its like come before the response.
                if !(100..200).contains(&status) || status == 101 {
                    break (status, headers);
                }
            };
            let body = if no_body || matches!(status, 101 | 204 | 304) {
                Vec::new()
            } else {
                self.read_body(&headers).await?
            };
            Ok(Response { status, headers, body, trailers: Vec::new(), took: start.elapsed() })
        })
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no response in time"))?
    }

    async fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let head = self.read_through(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| malformed(&head))?;
        let headers = lines
            .map(|line| line.split_once(':').ok_or_else(|| malformed(line)))
            .map(|pair| pair.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())))
            .collect::<io::Result<_>>()?;
        Ok((status, headers))
    }

    async fn read_body(&mut self, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
        let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        if header("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.read_through(b"\r\n").await?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let size = usize::from_str_radix(line.trim_end().split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| malformed(&line))?;
                if size == 0 {
                    while self.read_through(b"\r\n").await? != b"\r\n" {}
                    return Ok(body);
                }
                let mut chunk = self.read_exactly(size + 2).await?;
                chunk.truncate(size);
                body.append(&mut chunk);
            }
        } else if let Some(length) = header("content-length") {
            let length = length.parse().map_err(|_| malformed(length))?;
            self.read_exactly(length).await
        } else {
            while self.fill().await? {}
            Ok(std::mem::take(&mut self.unread))
        }
    }

    async fn read_through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let rest = self.unread.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            self.need().await?;
        }
    }

    async fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.need().await?;
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    async fn need(&mut self) -> io::Result<()> {
        if self.fill().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }
}

impl H2Connection {
    /// # Errors
    /// The connection is refused, or the server does not speak HTTP/2.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: "test.example".to_owned() })
    }

    /// A `host` header becomes `:authority`.
    ///
    /// # Errors
    /// The request cannot be said in HTTP/2, or its stream was reset.
    pub async fn send(&self, request: &Request) -> io::Result<Response> {
        let host = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = host.map_or(self.authority.as_bytes(), |(_, value)| value);
        let mut built = hyper::Request::builder().method(request.method.as_str()).uri(format!(
            "http://{}{}",
            String::from_utf8_lossy(authority),
            request.path
        ));
        for (name, value) in request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            built = built.header(name, value.as_slice());
        }
        let built = built.body(Full::new(Bytes::from(request.body.clone()))).map_err(io::Error::other)?;

        tokio::time::timeout(DEADLINE, async {
            let start = Instant::now();
            let response = self.sender.clone().send_request(built).await.map_err(io::Error::other)?;
            let status = response.status().as_u16();
            let pairs = |headers: &hyper::HeaderMap| {
                let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
            };
            let headers = pairs(response.headers());
            let body = response.into_body().collect().await.map_err(io::Error::other)?;
            let trailers = body.trailers().map(pairs).unwrap_or_default();
            Ok(Response { status, headers, body: body.to_bytes().to_vec(), trailers, took: start.elapsed() })
        })
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no response in time"))?
    }
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP response: {text:?}"))
}

/// RFC 8441: a WebSocket over HTTP/2. None: the stream was reset.
///
/// # Panics
/// There is no answer in time.
pub async fn extended_connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
    let stream = TcpStream::connect(address).await.expect("Envoy speaks HTTP/2");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("Envoy speaks HTTP/2");
    tokio::spawn(connection);
    // Only once the server's settings are here may it be sent: another exchange brings them.
    let first = hyper::Request::builder()
        .uri("http://test.example/nowhere")
        .body(Empty::<Bytes>::new())
        .expect("Envoy speaks HTTP/2");
    sender.send_request(first).await.expect("Envoy speaks HTTP/2");
    let request = hyper::Request::builder()
        .method("CONNECT")
        .uri(format!("http://test.example{path}"))
        .header("sec-websocket-version", "13");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut request = request.body(Empty::<Bytes>::new()).expect("Envoy speaks HTTP/2");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let answer = tokio::time::timeout(UPGRADE_DEADLINE, sender.send_request(request)).await.expect("an answer in time");
    answer.ok().map(|answer| answer.status().as_u16())
}
