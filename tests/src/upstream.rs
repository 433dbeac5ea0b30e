//! An HTTP server in the test's own process: an upstream that echoes requests, or a service that misbehaves.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A request as it reached the server.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// In the order received, repeated ones each for itself. Names in lower case; `host` is among them over HTTP/1.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// The reply to one request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Over HTTP/2.
    pub trailers: Vec<(String, String)>,
    /// Waited before anything is sent.
    pub delay: Duration,
}

/// Stops, its connections too, when it is dropped.
pub struct Upstream {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Answers 200 with [`Seen::to_json`] to everything, over HTTP/1.1 and HTTP/2.
    pub async fn start() -> Self {
        Self::answering(|seen| Answer::json(200, &seen.to_json())).await
    }

    pub async fn answering(answer: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::answering_on("127.0.0.1:0".parse().expect("an address"), answer).await
    }

    /// On a given address, to come back where another server was.
    pub async fn answering_on(address: SocketAddr, answer: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(serve(listener, Arc::new(answer), Arc::clone(&requests)));
        Self { address, requests, task }
    }

    pub(crate) fn of(address: SocketAddr, requests: Arc<AtomicU64>, task: JoinHandle<()>) -> Self {
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

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    /// `{"method", "path", "headers": [[name, value], …], "body_bytes"}`.
    pub fn to_json(&self) -> Value {
        json!({ "method": self.method, "path": self.path, "headers": self.headers, "body_bytes": self.body.len() })
    }
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), trailers: Vec::new(), delay: Duration::ZERO }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string()).header("content-type", "application/json")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

async fn serve(
    listener: TcpListener,
    answer: Arc<impl Fn(Seen) -> Answer + Send + Sync + 'static>,
    requests: Arc<AtomicU64>,
) {
    // Dropped with this task: a stopped server leaves no connection open.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
        connections.spawn(async move {
            let handler = service_fn(move |request| {
                requests.fetch_add(1, Ordering::SeqCst);
                respond(Arc::clone(&answer), request)
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), handler).await;
        });
    }
}

async fn respond(
    answer: Arc<impl Fn(Seen) -> Answer>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (parts, body) = request.into_parts();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
    };
    let answer = answer(seen);
    tokio::time::sleep(answer.delay).await;
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let trailers: HeaderMap = answer
        .trailers
        .iter()
        .map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)))
        .collect::<Option<_>>()
        .expect("the test's trailers are valid");
    let body = match trailers.is_empty() {
        true => Full::new(answer.body).boxed(),
        false => Full::new(answer.body).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed(),
    };
    Ok(response.body(body).expect("the test's answer is valid HTTP"))
}
