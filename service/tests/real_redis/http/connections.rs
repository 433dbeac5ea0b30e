//! Listeners, connections and bodies.
use super::*;

#[test]
fn a_forged_question_is_refused_without_an_answer_of_ours() {
    let (_redis, service) = started();
    let derived = secret(1).derive();
    let question = Question::new(&derived, [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let mut forged = question.bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let (status, body) = service.post_check(&forged);
    assert_eq!(status, 401);
    assert!(question.read_reply(&derived, status, &body).is_err());
    let strangers = Question::new(&secret(3).derive(), [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    assert_eq!(service.post_check(strangers.bytes()).0, 401);
    assert_eq!(service.post_check(b"nonsense").0, 400);
    assert_eq!(service.post_check(b"").0, 400);
    assert_eq!(service.post_check(&vec![0; MAX_QUESTION_BYTES + 1]).0, 413);
}

#[test]
fn http_2_with_prior_knowledge_is_spoken_on_the_same_port() {
    let (_redis, service) = started();
    let mut stream = TcpStream::connect(service.at.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "the first frame must be SETTINGS: {frame:?}");
}

#[test]
fn a_connection_is_kept_for_more_questions() {
    let (_redis, service) = started();
    let mut stream = TcpStream::connect(service.at.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut reply = [0; 1024];
        let read = stream.read(&mut reply).unwrap();
        assert!(reply[..read].starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn the_admin_listener_wants_its_secret_and_the_data_listener_has_none_of_it() {
    let (_redis, service) = started();
    for token in [None, Some("wrong"), Some("an-admin-token-for-tests-of-32-bytez")] {
        let (status, body) = service.admin_text("GET", "/v1/revocations", token, "");
        assert_eq!((status, body.contains("unauthorized")), (401, true), "{body}");
        assert_eq!(service.admin_text("POST", "/v1/revocations/bulk", token, "x").0, 401);
    }
    assert_eq!(service.admin("GET", "/v1/nothing", "").0, 404);
    assert_eq!(service.get("/v1/revocations").0, 404);
    assert_eq!(service.get("/metrics").0, 404);
    let (status, text) = service.admin_text("GET", "/metrics", None, "");
    assert_eq!((status, text.contains("portcullis_store_ready 1")), (200, true), "{text}");
}

#[test]
fn bodies_that_never_come_take_no_place_from_others() {
    let redis = Redis::start();
    let service = Running::start(service::Options { max_requests: 1, ..options(&redis) });
    let mut slow: Vec<_> = (0..8).map(|_| TcpStream::connect(service.at.listen).unwrap()).collect();
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(service.get("/healthz").0, 200);
    assert_eq!(service.get("/readyz").0, 200);
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Live]));
    for mut stream in slow {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 408");
    }
}

/// How long the service leaves it open.
fn closed_after(mut stream: TcpStream) -> Duration {
    let opened = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "still open after {:?}", opened.elapsed());
    }
    opened.elapsed()
}

#[test]
fn a_connection_without_a_question_of_ours_is_closed_and_one_with_is_kept() {
    let (_redis, service) = started();
    let ours = secret(1).derive();
    let question = Question::new(&ours, [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let mut kept = TcpStream::connect(service.at.listen).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut ask = |question: &Question| {
        let head = format!("POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", question.bytes().len());
        kept.write_all(&[head.as_bytes(), question.bytes()].concat()).unwrap();
        let mut reply = [0; 2048];
        let read = kept.read(&mut reply).unwrap();
        assert!(reply[..read].starts_with(b"HTTP/1.1 200"));
    };
    ask(&question);
    std::thread::scope(|scope| {
        for said in [
            &b""[..],
            b"PRI * HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"POST /v1/check HTTP/1.1\r\n",
            b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            for at in [service.at.listen, service.at.admin] {
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(at).unwrap();
                    stream.write_all(said).unwrap();
                    let after = closed_after(stream);
                    let expected = Duration::from_secs(9)..Duration::from_secs(17);
                    assert!(expected.contains(&after), "{said:?} was closed after {after:?}");
                });
            }
        }
    });
    ask(&question);
}

#[test]
fn one_more_connection_that_asked_nothing_ends_the_oldest_of_its_address() {
    let redis = Redis::start();
    let service = Running::start(service::Options { max_unauthenticated_per_peer: 4, ..options(&redis) });
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(service.at.listen).unwrap()).collect();
    // A new proxy, and a probe: both get in.
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Live]));
    let oldest = silent.remove(0);
    let after = closed_after(oldest);
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert_eq!(probe(service.at.listen, "/healthz"), 200);
}

fn probe(at: std::net::SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn the_ports_file_has_both_addresses() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ports");
    let service = Running::start(service::Options { ports_file: Some(path.clone()), ..options(&redis) });
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(ports["listen"], service.at.listen.to_string());
    assert_eq!(ports["admin"], service.at.admin.to_string());
}

#[test]
fn a_request_in_progress_is_answered_after_the_service_was_told_to_stop() {
    let (_redis, mut service) = started();
    let derived = secret(1).derive();
    let question = Question::new(&derived, [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let mut stream = TcpStream::connect(service.at.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let length = question.bytes().len();
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The interim answer proves that the request is in progress.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    service.stop();
    let at = service.at.listen;
    eventually(Duration::from_secs(5), || TcpStream::connect(at).is_err().then_some(()));
    stream.write_all(question.bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let body = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(reply.starts_with(b"HTTP/1.1 200"));
    assert_eq!(
        question.read_reply(&derived, 200, &reply[body..]).map(|reply| reply.map(|reply| reply.answers)),
        Ok(Ok(vec![Answer::Live]))
    );
}
