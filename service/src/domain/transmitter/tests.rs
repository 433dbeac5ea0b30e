use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey as Minted};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use wire::{Kind, RevocationKey};

use super::*;
use crate::signing::{Metrics as SigningMetrics, SigningKey};

/// With receivers at these paths, on a port where nobody listens.
fn transmitter(paths: &[&str], metrics: &Metrics, former: &Transmitter) -> Transmitter {
    let urls: Vec<_> = paths.iter().map(|path| format!("http://127.0.0.1:1/{path}")).collect();
    transmitter_to(&urls, metrics, former)
}

fn transmitter_to(urls: &[String], metrics: &Metrics, former: &Transmitter) -> Transmitter {
    let receiver = |url| format!("- {{ url: '{url}', audience: a, events: [session-revoked, risk-level-change] }}\n");
    let receivers: String = urls.iter().map(receiver).collect();
    let receivers: Receivers = serde_norway::from_str(&format!("receivers:\n{receivers}")).unwrap();
    let key = SigningKey::from_pem(&Minted::generate(Alg::ES256, "x").private_pem().unwrap()).unwrap();
    let signing = Signing::new(vec![Arc::new(key)], Duration::ZERO, SigningMetrics::default(), Instant::now());
    let work = former.work.clone();
    Transmitter::new(&receivers, "https://us.example", &Arc::new(signing), metrics.clone(), work, former).unwrap()
}

fn event(content: Content) -> Event {
    let (key, sid) = (RevocationKey([7; 16]), Some("s".into()));
    Event { subject: Subject { kind: Kind::Session, key, issuer: None, sub: None, sid }, content, at: 5 }
}

fn ended() -> Event {
    event(Content::Ended { by: Initiator::Admin, reason: None })
}

fn count(metrics: &Metrics, result: &str) -> u64 {
    let (mut registry, mut text) = (Registry::default(), String::new());
    metrics.register(&mut registry);
    encode(&mut text, &registry).unwrap();
    let name = format!("sent_events_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
}

#[test]
fn a_bulk_leaves_places_for_signs_of_an_attack() {
    let metrics = Metrics::default();
    let transmitter = transmitter(&["a"], &metrics, &Transmitter::default());
    (0..MAX_WAITING).for_each(|_| transmitter.send(&ended()));
    assert_eq!(count(&metrics, "dropped"), 256);
    (0..FOR_RISKS).for_each(|_| transmitter.send(&event(Content::AtRisk("travel".into()))));
    assert_eq!(count(&metrics, "dropped"), 256);
    transmitter.send(&event(Content::AtRisk("travel".into())));
    assert_eq!(count(&metrics, "dropped"), 257);
}

#[tokio::test]
async fn what_waits_goes_on_for_a_receiver_that_is_as_before_and_ends_for_another_one() {
    let (metrics, stop) = (Metrics::default(), watch::Sender::new(false));
    let former = transmitter(&["stays", "goes"], &metrics, &Transmitter::default());
    former.start(&stop.subscribe());
    (0..3).for_each(|_| former.send(&ended()));
    let now = transmitter(&["new", "stays"], &metrics, &former);
    assert!(Arc::ptr_eq(&now.channels[1], &former.channels[0]));
    now.start(&stop.subscribe());
    former.end_others(&now);
    let given_up = async {
        while count(&metrics, "expired") < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), given_up).await.unwrap();
    assert!(
        !former.channels[1]
            .outbox
            .enqueue_leaving(0, event::claims(&ended(), "i", now.channels[0].delivery.receiver()).unwrap())
    );
    assert_eq!((count(&metrics, "expired"), count(&metrics, "dropped")), (3, 0));
    // At the stop the others are tried once more.
    stop.send_replace(true);
    now.work.close();
    now.work.wait().await;
    assert_eq!(count(&metrics, "expired"), 6);
}

/// Answers each request in turn, and returns the tokens that it got.
fn receive(listener: &TcpListener, answers: &[(&str, &str)]) -> Vec<String> {
    let answer = |(status, body): &(&str, &str)| {
        let stream = listener.accept().unwrap().0;
        let mut reader = BufReader::new(&stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim_end().to_lowercase();
            if let Some(given) = line.strip_prefix("content-length: ") {
                length = given.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut token = vec![0; length];
        reader.read_exact(&mut token).unwrap();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        (&stream).write_all(head.as_bytes()).unwrap();
        String::from_utf8(token).unwrap()
    };
    answers.iter().map(answer).collect()
}

#[tokio::test]
async fn a_receiver_that_refuses_the_sender_gets_the_event_again_and_signed_anew_if_it_is_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let receiver = std::thread::spawn(move || {
        let key = ("400 Bad", r#"{"err":"invalid_key"}"#);
        receive(&listener, &[("400 Bad", r#"{"err":"authentication_failed"}"#), key, ("202 Accepted", "")])
    });
    let (metrics, stop) = (Metrics::default(), watch::Sender::new(false));
    let transmitter = transmitter_to(&[url], &metrics, &Transmitter::default());
    transmitter.start(&stop.subscribe());
    transmitter.send(&ended());
    let taken = async {
        while count(&metrics, "sent") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
    let tokens = receiver.join().unwrap();
    let claims = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2], "signed anew");
    assert_eq!(claims(&tokens[1]), claims(&tokens[2]), "the same event");
}
