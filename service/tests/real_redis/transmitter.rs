//! A transmitter of a test's own, on a real socket: it follows RFC 8936, or misbehaves as it is told to.
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How requests are answered.
#[derive(Debug, Clone)]
pub enum Answers {
    /// As in RFC 8936: what was acknowledged or refused is gone, up to `maxEvents` of the others are sent.
    Follows,
    /// The same, but acknowledgements are forgotten.
    ForgetsReports,
    /// The same, but all events are sent, whatever was asked for.
    SendsAll,
    Body(String),
    Status(u16, &'static str),
    /// Accepts, and says nothing.
    Nothing,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: Value,
}

#[derive(Debug)]
struct State {
    answers: Answers,
    /// Not acknowledged yet, by `jti`.
    outstanding: BTreeMap<String, Value>,
    acknowledged: Vec<String>,
    refused: BTreeMap<String, Value>,
    requests: Vec<Request>,
    stopped: bool,
}

#[derive(Debug, Clone)]
pub struct Transmitter {
    pub at: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

/// How long a request is held that may be.
const HOLDS: Duration = Duration::from_secs(30);

impl Transmitter {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let state = State {
            answers: Answers::Follows,
            outstanding: BTreeMap::new(),
            acknowledged: Vec::new(),
            refused: BTreeMap::new(),
            requests: Vec::new(),
            stopped: false,
        };
        let transmitter = Self { at, state: Arc::new((Mutex::new(state), Condvar::new())) };
        let serving = transmitter.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.state.0.lock().unwrap().stopped {
                    break;
                }
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        transmitter
    }

    pub fn url(&self) -> String {
        format!("http://{}/poll", self.at)
    }

    pub fn now(&self, answers: Answers) {
        self.state.0.lock().unwrap().answers = answers;
        self.state.1.notify_all();
    }

    /// Has an event to send, under its name.
    pub fn has(&self, jti: &str, set: impl Into<Value>) {
        self.state.0.lock().unwrap().outstanding.insert(jti.to_owned(), set.into());
        self.state.1.notify_all();
    }

    pub fn acknowledged(&self) -> Vec<String> {
        self.state.0.lock().unwrap().acknowledged.clone()
    }

    pub fn refused(&self) -> BTreeMap<String, Value> {
        self.state.0.lock().unwrap().refused.clone()
    }

    pub fn outstanding(&self) -> usize {
        self.state.0.lock().unwrap().outstanding.len()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.0.lock().unwrap().requests.clone()
    }

    pub fn stop(&self) {
        self.state.0.lock().unwrap().stopped = true;
        self.state.1.notify_all();
        let _ = TcpStream::connect(self.at);
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read(&stream) else { return };
        let answers = {
            let mut state = self.state.0.lock().unwrap();
            state.requests.push(request.clone());
            state.answers.clone()
        };
        let (status, extra, body) = match &answers {
            Answers::Body(body) => (200, "", body.clone()),
            Answers::Status(status, extra) => (*status, *extra, String::new()),
            Answers::Nothing => {
                // Until the other side gives up.
                let _ = stream.read(&mut [0; 1]);
                return;
            }
            Answers::Follows | Answers::ForgetsReports | Answers::SendsAll => {
                (200, "content-type: application/json\r\n", self.follow(&answers, &request.body))
            }
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Said\r\n{extra}content-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }

    fn follow(&self, answers: &Answers, request: &Value) -> String {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().unwrap();
        for jti in request["ack"].as_array().into_iter().flatten() {
            let jti = jti.as_str().unwrap().to_owned();
            if !matches!(answers, Answers::ForgetsReports) {
                state.outstanding.remove(&jti);
            }
            state.acknowledged.push(jti);
        }
        for (jti, why) in request["setErrs"].as_object().into_iter().flatten() {
            state.outstanding.remove(jti);
            state.refused.insert(jti.clone(), why.clone());
        }
        let most = match answers {
            Answers::SendsAll => usize::MAX,
            _ => usize::try_from(request["maxEvents"].as_u64().unwrap()).unwrap(),
        };
        let holds = most > 0 && request["returnImmediately"] == json!(false);
        let until = Instant::now() + HOLDS;
        while holds && state.outstanding.is_empty() && !state.stopped && Instant::now() < until {
            state = changed.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
        let sets: serde_json::Map<_, _> =
            state.outstanding.iter().take(most).map(|(jti, set)| (jti.clone(), set.clone())).collect();
        let more = sets.len() < state.outstanding.len();
        json!({ "sets": sets, "moreAvailable": more }).to_string()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST /poll HTTP/1.1"), "{line}");
    let (mut length, mut authorization, mut content_type) = (0, None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            "content-type" => content_type = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap();
    Some(Request { authorization, content_type, body })
}
