//! A service that strangers hold connections to, and send bodies that never end: a new proxy gets its answers all the
//! same, and the service's memory stays within bounds.
use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use harness::{Directory, Mesh, MeshOptions, Redis, Request, ServiceOptions, exchange};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const IDLE: usize = 500;
const CONNECTIONS: usize = 16;
const BODIES: usize = 250;
const BODY: usize = 190_000;
/// The most memory that the service may take under all of it.
const MEMORY: u64 = 96 * 1024 * 1024;

/// The service has sessions, so it takes long bodies at its OAuth endpoints.
async fn start(name: &str) -> (Mesh, Redis) {
    let directory = Directory::new(name);
    let redis = Redis::start(&directory).await;
    let mut service = ServiceOptions::new(redis.url());
    for (flag, value) in [("--session-issuer", "https://sessions.example"), ("--session-audience", "api")] {
        service.arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    let options = MeshOptions { service: Some(service), ..MeshOptions::default() };
    let mesh = Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("{log}"));
    (mesh, redis)
}

/// Sends bodies that never end on one connection, until its time is over.
async fn flood(address: std::net::SocketAddr, until: Instant) {
    while Instant::now() < until {
        let Ok(stream) = TcpStream::connect(address).await else { continue };
        let Ok((mut sender, connection)) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await
        else {
            continue;
        };
        let connection = tokio::spawn(connection);
        let mut requests = JoinSet::new();
        for _ in 0..BODIES {
            let data = Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'a'; BODY])));
            let body = StreamBody::new(stream::iter([data]).chain(stream::pending()));
            let request = hyper::Request::post("http://service/oauth2/introspect").body(body).unwrap();
            if sender.ready().await.is_err() {
                break;
            }
            requests.spawn(sender.send_request(request));
        }
        let _ = tokio::time::timeout_at(until.into(), requests.join_all()).await;
        connection.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_is_answered_while_strangers_hold_connections_and_send_bodies_that_never_end() {
    let _turn = harness::under_load().await;
    let (mut mesh, _redis) = start("strangers").await;
    let address = mesh.service.as_ref().expect("a service").address();
    let until = Instant::now() + Duration::from_secs(8);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(address).await.expect("it listens"));
    }
    let mut attack = JoinSet::new();
    for _ in 0..CONNECTIONS {
        attack.spawn(flood(address, until));
    }
    let mut most = 0;
    let mut probes = 0;
    while Instant::now() < until {
        most = most.max(mesh.service.as_mut().expect("a service").process().resident_bytes());
        let ready = exchange(address, &Request::get("/readyz")).await.expect("the probe gets in");
        assert_eq!(ready.status, 200, "{}", ready.text());
        probes += 1;
        if probes == 10 {
            let options = MeshOptions { check_address: Some(address), ..MeshOptions::default() };
            let new = Mesh::start_with("new-proxy", options).await;
            for _ in 0..20 {
                let response = new.get(&new.token()).await;
                assert_eq!(response.status, 200, "{}", response.text());
            }
        }
    }
    attack.join_all().await;
    // With the tenth came the new proxy.
    assert!(probes >= 10, "{probes} probes");
    println!("strangers: at most {} MB, {probes} probes", most / 1024 / 1024);
    assert!(most < MEMORY, "{most} bytes");
    // The proxy that was there before has its connection still.
    let response = mesh.get(&mesh.token()).await;
    assert_eq!(response.status, 200, "{}", response.text());
}
