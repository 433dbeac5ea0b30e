//! A region of a simulated global table: a proxy before a server. It counts requests and capacity units, refuses requests as
//! DynamoDB does when a table is throttled, loses replies, and tells of each write, for replication.
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::SystemTime;

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use super::{Server, TABLE, named};
use store_dynamodb::TableName;

/// The keys of an item.
pub type Name = (String, String);
/// When and where an item was last written. The larger one wins, as in a global table with eventual consistency.
pub type Written = (u64, usize);

pub struct Region {
    pub server: Server,
    pub port: u16,
    pub state: Arc<State>,
}

#[derive(Default)]
pub struct State {
    pub index: usize,
    server: u16,
    /// Every so many requests one passes, the others are refused. 0: all pass.
    pub throttle: AtomicUsize,
    requests: AtomicUsize,
    /// Of the `Date` in replies.
    pub date_ahead_seconds: AtomicI64,
    /// The next PutItem in a partition that begins with this is applied, and its reply is lost.
    pub lost: StdMutex<Option<&'static str>>,
    used: StdMutex<Used>,
    /// Held during each write.
    written: Mutex<HashMap<Name, Written>>,
    changes: Option<mpsc::UnboundedSender<Change>>,
    clock: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Used {
    pub read_units: f64,
    pub write_units: f64,
    pub calls: BTreeMap<String, usize>,
    pub refused: usize,
}

/// An item after a write. `None`: it was deleted.
#[derive(Debug, Clone)]
pub struct Change {
    pub name: Name,
    pub item: Option<Value>,
    pub written: Written,
}

impl Region {
    pub async fn start(index: usize, clock: Arc<AtomicU64>, changes: Option<mpsc::UnboundedSender<Change>>) -> Self {
        let server = Server::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { index, server: server.port, changes, clock, ..State::default() });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // Ends when the client or the server closes.
                tokio::spawn(async move { drop(state.serve(client).await) });
            }
        });
        Self { server, port, state }
    }

    pub async fn alone() -> Self {
        Self::start(0, Arc::default(), None).await
    }

    pub fn table(&self, settings: &str) -> TableName {
        named(self.port, settings)
    }

    /// What was used since the last call.
    pub fn used(&self) -> Used {
        std::mem::take(&mut *self.state.used.lock().unwrap())
    }
}

impl State {
    async fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut server = BufReader::new(TcpStream::connect(("127.0.0.1", self.server)).await?);
        let mut client = BufReader::new(client);
        while let Some((head, body)) = message(&mut client).await? {
            let mut body: Value = serde_json::from_slice(&body)?;
            let operation = header(&head, "x-amz-target").unwrap_or_default().rsplit('.').next().unwrap().to_owned();
            let every = self.throttle.load(Ordering::Relaxed);
            let is_refused = every > 0 && !self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(every);
            if is_refused {
                self.used.lock().unwrap().refused += 1;
                let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
                let refusal = json!({ "__type": kind, "message": "throttled by the test" }).to_string();
                reply(&mut client, "HTTP/1.1 400 Bad Request\r\n", refusal.as_bytes()).await?;
                continue;
            }
            body["ReturnConsumedCapacity"] = json!("TOTAL");
            if operation == "UpdateItem" {
                body["ReturnValues"] = json!("ALL_NEW");
            }
            let is_write = ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"].contains(&operation.as_str());
            let held = if is_write { Some(self.written.lock().await) } else { None };
            let without: String = head.lines().skip(1).filter(|line| !is_about_body(line)).fold(String::new(), add);
            let line = head.lines().next().unwrap_or_default();
            reply(&mut server, &format!("{line}\r\n{without}"), body.to_string().as_bytes()).await?;
            let Some((head, answer)) = message(&mut server).await? else { return Ok(()) };
            let is_done = head.lines().next().is_some_and(|line| line.contains(" 200"));
            let read: Value = serde_json::from_slice(&answer)?;
            self.count(&operation, &read, is_write);
            if let (Some(mut written), true, Some(changes)) = (held, is_done, &self.changes) {
                for (name, item) in writes(&operation, &body, &read) {
                    let at = (self.clock.fetch_add(1, Ordering::SeqCst), self.index);
                    written.insert(name.clone(), at);
                    let _ = changes.send(Change { name, item, written: at });
                }
            }
            if operation == "PutItem" && is_done && self.loses(&body) {
                return Ok(());
            }
            let ahead = self.date_ahead_seconds.load(Ordering::Relaxed);
            let is_kept = |line: &&str| !is_about_body(line) && !line.to_ascii_lowercase().starts_with("date:");
            let lines: String = head.lines().skip(1).filter(is_kept).fold(date(ahead), add);
            let status = head.lines().next().unwrap_or_default();
            reply(&mut client, &format!("{status}\r\n{lines}"), &answer).await?;
        }
        Ok(())
    }

    fn loses(&self, body: &Value) -> bool {
        let partition = body["Item"]["p"]["S"].as_str().unwrap_or_default();
        self.lost.lock().unwrap().take_if(|start| partition.starts_with(*start)).is_some()
    }

    fn count(&self, operation: &str, answer: &Value, is_write: bool) {
        let consumed = &answer["ConsumedCapacity"];
        let units = |value: &Value| value["CapacityUnits"].as_f64().unwrap_or_default();
        let units: f64 = consumed.as_array().map_or_else(|| units(consumed), |all| all.iter().map(units).sum());
        let mut used = self.used.lock().unwrap();
        *used.calls.entry(operation.to_owned()).or_default() += 1;
        if is_write {
            used.write_units += units;
        } else {
            used.read_units += units;
        }
    }

    /// A change from another region. A later write here stays.
    pub async fn apply(&self, change: &Change) {
        let mut written = self.written.lock().await;
        if written.get(&change.name).is_some_and(|here| *here > change.written) {
            return;
        }
        let (operation, body) = match &change.item {
            Some(item) => ("PutItem", json!({ "TableName": TABLE, "Item": item })),
            None => {
                let key = json!({ "p": { "S": change.name.0 }, "s": { "S": change.name.1 } });
                ("DeleteItem", json!({ "TableName": TABLE, "Key": key }))
            }
        };
        let mut server = BufReader::new(TcpStream::connect(("127.0.0.1", self.server)).await.unwrap());
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\nx-amz-date: 20260101T000000Z\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b\r\n"
        );
        reply(&mut server, &head, body.to_string().as_bytes()).await.unwrap();
        let (head, answer) = message(&mut server).await.unwrap().unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head} {}", String::from_utf8_lossy(&answer));
        written.insert(change.name.clone(), change.written);
    }
}

/// The items that a request has written.
fn writes(operation: &str, body: &Value, answer: &Value) -> Vec<(Name, Option<Value>)> {
    let name = |item: &Value| {
        let text = |key: &str| item[key]["S"].as_str().unwrap().to_owned();
        (text("p"), text("s"))
    };
    match operation {
        "PutItem" => vec![(name(&body["Item"]), Some(body["Item"].clone()))],
        "UpdateItem" => vec![(name(&body["Key"]), Some(answer["Attributes"].clone()))],
        "DeleteItem" => vec![(name(&body["Key"]), None)],
        "BatchWriteItem" => {
            let requests = body["RequestItems"][TABLE].as_array().unwrap();
            requests.iter().map(|request| (name(&request["DeleteRequest"]["Key"]), None)).collect()
        }
        other => panic!("{other} is no write"),
    }
}

fn is_about_body(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
    name.is_empty() || ["content-length", "transfer-encoding"].contains(&name.as_str())
}

fn date(ahead_seconds: i64) -> String {
    let now = DateTime::from(SystemTime::now()).secs() + ahead_seconds;
    format!("date: {}\r\n", DateTime::from_secs(now).fmt(DateTimeFormat::HttpDate).unwrap())
}

fn add(lines: String, line: &str) -> String {
    lines + line + "\r\n"
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let found = head.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)));
    found.map(|(_, value)| value.trim())
}

/// The head and the body. `None`: the peer has closed.
async fn message(from: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if head[before..].trim().is_empty() {
            break;
        }
    }
    let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}

async fn reply(to: &mut BufReader<TcpStream>, head: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("{head}content-length: {}\r\n\r\n", body.len());
    to.write_all(&[head.as_bytes(), body].concat()).await
}
