//! Streams that do not end by themselves: an upstream that answers with WebSockets, server-sent events and gRPC messages,
//! and clients that note when such a stream was ended.
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Interval;

use crate::{Upstream, wait_until};

const TICK: Duration = Duration::from_millis(20);
/// The longest that the first message may take.
const BEGIN: Duration = Duration::from_secs(10);
/// A message of gRPC: not compressed, one byte.
const GRPC_MESSAGE: &[u8] = b"\0\0\0\0\x01.";
const WEBSOCKET_MESSAGE: &[u8] = b"\x81\x01.";
const EVENT: &[u8] = b"data: .\n\n";

/// In which form a stream is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    WebSocket,
    /// Server-sent events over HTTP/1.1.
    Events,
    /// A gRPC call over HTTP/2 whose request does not end either.
    Grpc,
}

/// A stream that a client holds open.
pub struct OpenStream {
    messages: Messages,
    /// Returns when the stream is over.
    end: JoinHandle<()>,
    /// Ends the request's body, over HTTP/2: as long as it goes on, hyper keeps the connection open.
    is_dropped: Arc<AtomicBool>,
}

/// How many messages have come, and when the last one came.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<(u64, Option<Instant>)>>);

/// A body that ends when somebody says so. Without a message it is empty.
struct Ticks {
    messages: Option<(Interval, &'static [u8])>,
    is_over: Arc<AtomicBool>,
}

impl Upstream {
    /// Answers each request with a message every 20 ms. `/hang` in a path: it does not answer.
    pub async fn ticking() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    let handler = service_fn(move |request| {
                        count.fetch_add(1, Ordering::SeqCst);
                        tick(request)
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), handler).await;
                });
            }
        });
        Self::of(address, requests, task)
    }
}

async fn tick(mut request: hyper::Request<Incoming>) -> Result<hyper::Response<Ticks>, Infallible> {
    if request.uri().path().contains("/hang") {
        std::future::pending::<()>().await;
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let response = hyper::Response::builder();
    let response = if header("upgrade").eq_ignore_ascii_case("websocket") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.expect("an upgrade"));
            while stream.write_all(WEBSOCKET_MESSAGE).await.is_ok() {
                tokio::time::sleep(TICK).await;
            }
        });
        response.status(101).header("connection", "upgrade").header("upgrade", "websocket").body(Ticks::none())
    } else if header("content-type") == "application/grpc" {
        response.header("content-type", "application/grpc").body(Ticks::of(GRPC_MESSAGE))
    } else {
        response.header("content-type", "text/event-stream").body(Ticks::of(EVENT))
    };
    Ok(response.expect("a response"))
}

impl Ticks {
    fn none() -> Self {
        Self { messages: None, is_over: Arc::default() }
    }

    fn of(message: &'static [u8]) -> Self {
        Self { messages: Some((tokio::time::interval(TICK), message)), ..Self::none() }
    }
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((interval, message)) = &mut self.messages else { return Poll::Ready(None) };
        ready!(interval.poll_tick(context));
        let message = Bytes::from_static(message);
        let goes_on = !self.is_over.load(Ordering::SeqCst);
        Poll::Ready(goes_on.then(|| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none()
    }
}

impl OpenStream {
    /// Opens a stream below `/api`, and waits until messages come.
    ///
    /// # Panics
    /// It is refused.
    pub async fn open(form: Form, address: SocketAddr, token: &str) -> Self {
        let token = format!("Bearer {token}");
        let stream = match form {
            Form::WebSocket | Form::Events => over_http1(form, address, &token).await,
            Form::Grpc => over_http2(address, &token).await,
        };
        let stream = stream.expect("Envoy answers");
        let begun = wait_until(BEGIN, async || stream.messages() > 0 || stream.is_over()).await;
        assert!(begun && !stream.is_over(), "{form:?}: {} messages", stream.messages());
        stream
    }

    /// How many messages, or pieces of some, have come.
    pub fn messages(&self) -> u64 {
        self.messages.get().0
    }

    pub fn is_over(&self) -> bool {
        self.end.is_finished()
    }

    /// When its last message came. `None`: it is not over after this time.
    pub async fn ended(&mut self, within: Duration) -> Option<Instant> {
        tokio::time::timeout(within, &mut self.end).await.ok()?.expect("no panic");
        self.messages.get().1
    }

    /// Do messages come?
    pub async fn goes_on(&self) -> bool {
        let before = self.messages();
        wait_until(BEGIN, async || self.messages() > before + 3 || self.is_over()).await && !self.is_over()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.end.abort();
        self.is_dropped.store(true, Ordering::SeqCst);
    }
}

impl Messages {
    fn came(&self) {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *messages = (messages.0 + 1, Some(Instant::now()));
    }

    fn get(&self) -> (u64, Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn over_http1(form: Form, address: SocketAddr, token: &str) -> io::Result<OpenStream> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = format!("GET /api/stream HTTP/1.1\r\nhost: test.example\r\nauthorization: {token}\r\n");
    let mut wanted = "HTTP/1.1 200 ";
    if form == Form::WebSocket {
        request += "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
        request += "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        wanted = "HTTP/1.1 101 ";
    }
    stream.write_all((request + "\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with(wanted), "{form:?}: {head}");
    let messages = Messages::default();
    let count = messages.clone();
    let end = tokio::spawn(async move {
        let mut piece = [0; 1024];
        while let Ok(1..) = stream.read(&mut piece).await {
            count.came();
        }
    });
    Ok(OpenStream { messages, end, is_dropped: Arc::default() })
}

async fn over_http2(address: SocketAddr, token: &str) -> io::Result<OpenStream> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let body = Ticks::of(GRPC_MESSAGE);
    let is_dropped = Arc::clone(&body.is_over);
    let request = hyper::Request::post("http://test.example/api/Service/Method")
        .header("authorization", token)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    assert_eq!((response.status(), response.headers().get("grpc-status")), (hyper::StatusCode::OK, None));
    let messages = Messages::default();
    let count = messages.clone();
    let end = tokio::spawn(async move {
        // Without it the connection would be closed.
        let _sender = sender;
        let mut body = response.into_body();
        while let Some(Ok(_)) = body.frame().await {
            count.came();
        }
    });
    Ok(OpenStream { messages, end, is_dropped })
}
