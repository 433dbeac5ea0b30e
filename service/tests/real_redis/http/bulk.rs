//! Many revocations in one request.
use super::*;

fn begin_bulk(service: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(service.at.admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = format!(
        "POST /v1/revocations/bulk HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\n\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn bulk_requests_hold_their_places_until_their_answers_end() {
    let (_redis, service) = started();
    let mut streams: Vec<_> = (0..4).map(|_| begin_bulk(&service)).collect();
    for stream in &mut streams {
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    let (status, text) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), "x");
    assert_eq!((status, text.contains("busy")), (503, true), "{text}");
    streams[0].write_all(b"0\r\n\r\n").unwrap();
    eventually(Duration::from_secs(5), || {
        (service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), "x").0 == 200).then_some(())
    });
}

#[test]
fn bulk_answers_each_line_and_a_bad_one_stops_nothing() {
    let (_redis, service) = started();
    let mut body = String::new();
    for n in 0..1000 {
        match n {
            10 => body.push_str("nonsense\n"),
            20 => body.push_str(r#"{"kind":"user","issuer":"i"}"#.to_owned().as_str()),
            _ => body.push_str(&asking(Kind::Session, &format!("s{n}"))),
        }
        if n != 10 {
            body.push('\n');
        }
    }
    let (status, text) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), &body);
    assert_eq!(status, 200);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1001);
    for (at, line) in lines[..1000].iter().enumerate() {
        assert_eq!(line["line"], at + 1);
        assert_eq!(line.get("error").is_some(), at == 10 || at == 20, "{line}");
    }
    assert_eq!(lines[20]["error"]["field"], "id");
    let summary = serde_json::json!({ "summary": { "lines": 1000, "written": 998, "failed": 2 } });
    assert_eq!(lines[1000], summary);
    let keys: Vec<_> = (0..500).map(|n| key(Kind::Session, &format!("s{}", n + 100))).collect();
    assert_eq!(service.check(&keys), Ok(vec![Answer::Dead; 500]));
}
