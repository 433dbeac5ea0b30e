//! Sends requests over keep-alive connections: in a closed loop, where each connection sends its next request as soon
//! as it has its answer, or at a fixed rate. One thread, and requests prepared beforehand, so that the generator costs
//! less than what it measures.
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// Silence for this long counts as a hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers other than 200 before the run is abandoned.
const MOST_FAILED: u64 = 1000;
/// An answer here is a status line and a few headers.
const LONGEST_ANSWER: usize = 16 * 1024;

pub struct Generator<'r> {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    requests: &'r [Vec<u8>],
    next: usize,
}

struct Connection {
    stream: TcpStream,
    /// When its request was sent, or was due.
    sent: Instant,
    answer: Box<[u8; LONGEST_ANSWER]>,
    filled: usize,
}

/// The results of one run.
#[derive(Debug, Default)]
pub struct Run {
    /// All answered requests, with any status.
    pub answered: u64,
    /// Those with a status other than 200.
    pub failed: u64,
    /// The first of them.
    pub first_failure: Option<String>,
    pub took: Duration,
    /// Latencies of the requests answered with 200, sorted.
    pub nanoseconds: Vec<u32>,
}

impl<'r> Generator<'r> {
    /// `requests` are sent in order and repeatedly, starting at index `from`.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        requests: &'r [Vec<u8>],
        from: usize,
    ) -> anyhow::Result<Self> {
        ensure!(!requests.is_empty(), "no requests");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut opened = Vec::with_capacity(connections);
        for place in 0..connections {
            let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(u64::try_from(place)?), epoll::EventFlags::IN)?;
            opened.push(Connection { stream, sent: Instant::now(), answer: Box::new([0; LONGEST_ANSWER]), filled: 0 });
        }
        Ok(Self { epoll, connections: opened, requests, next: from % requests.len() })
    }

    /// The request with which the next run starts.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Sends for this long and at least this many requests, and then waits for the last answers: afterwards the proxy
    /// is idle.
    ///
    /// # Errors
    /// A connection broke, an answer is not HTTP, nothing came for a long time, or too many failed.
    pub fn run(&mut self, length: Duration, at_least: usize) -> anyhow::Result<Run> {
        let start = Instant::now();
        let end = start + length;
        let mut run = Run::default();
        let at_least = u64::try_from(at_least)?;
        for place in 0..self.connections.len() {
            self.send(place, Instant::now())?;
        }
        let mut under_way = self.connections.len();
        let mut places = Vec::with_capacity(self.connections.len());
        while under_way > 0 {
            self.wait(PATIENCE, &mut places)?;
            ensure!(!places.is_empty(), "no answer within {PATIENCE:?}; {under_way} requests wait");
            for place in places.drain(..) {
                let Some(now) = self.receive(place, &mut run)? else { continue };
                if now < end || run.answered < at_least {
                    self.send(place, now)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(run.ended(start))
    }

    /// Sends `rate` requests per second for this long, evenly, and then waits for the last answers. A request that
    /// finds all connections busy is sent late; its latency counts from when it was due.
    ///
    /// # Errors
    /// As [`Generator::run`].
    pub fn run_at(&mut self, rate: u32, length: Duration) -> anyhow::Result<Run> {
        let start = Instant::now();
        let end = start + length;
        let step = Duration::from_secs(1) / rate;
        let mut due = start;
        let mut run = Run::default();
        let mut idle: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut places = Vec::with_capacity(self.connections.len());
        while due < end || idle.len() < self.connections.len() {
            let now = Instant::now();
            while due <= now.min(end)
                && let Some(place) = idle.pop_front()
            {
                self.send(place, due)?;
                due += step;
            }
            let sends_next = due < end && !idle.is_empty();
            let longest = if sends_next { due.saturating_duration_since(Instant::now()) } else { PATIENCE };
            self.wait(longest, &mut places)?;
            ensure!(sends_next || !places.is_empty(), "no answer within {PATIENCE:?}");
            for place in places.drain(..) {
                if self.receive(place, &mut run)?.is_some() {
                    idle.push_back(place);
                }
            }
        }
        Ok(run.ended(start))
    }

    /// Adds the connections that have something to read, waiting for at most `longest`.
    fn wait(&self, longest: Duration, places: &mut Vec<usize>) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut events = Vec::with_capacity(self.connections.len());
        loop {
            let left = Timespec::try_from(longest.saturating_sub(start.elapsed())).context("a time to wait")?;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&left)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                places.push(usize::try_from(event.data.u64())?);
            }
            return Ok(());
        }
    }

    /// When the answer on this connection was complete; `None` while it is not.
    fn receive(&mut self, place: usize, run: &mut Run) -> anyhow::Result<Option<Instant>> {
        let Some(connection) = self.connections.get_mut(place) else { return Ok(None) };
        let Some(failure) = connection.read()? else { return Ok(None) };
        let now = Instant::now();
        run.answered += 1;
        match failure {
            Failure::None => {
                let waited = now.saturating_duration_since(connection.sent).as_nanos();
                run.nanoseconds.push(u32::try_from(waited).unwrap_or(u32::MAX));
            }
            Failure::Answer(text) => {
                run.failed += 1;
                ensure!(run.failed <= MOST_FAILED, "too many requests fail: {text}");
                run.first_failure.get_or_insert(text);
            }
        }
        Ok(Some(now))
    }

    fn send(&mut self, place: usize, from: Instant) -> anyhow::Result<()> {
        let request = &self.requests[self.next];
        self.next = (self.next + 1) % self.requests.len();
        let connection = &mut self.connections[place];
        connection.sent = from;
        connection.stream.write_all(request).context("sending a request")
    }
}

impl Run {
    fn ended(mut self, start: Instant) -> Self {
        self.took = start.elapsed();
        self.nanoseconds.sort_unstable();
        self
    }

    /// The latency below which this share of the requests stayed, in microseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.nanoseconds.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.nanoseconds.get(place).map_or(f64::NAN, |nanoseconds| f64::from(*nanoseconds) / 1000.0)
    }
}

enum Failure {
    None,
    Answer(String),
}

impl Connection {
    /// `None` while the answer is not complete.
    fn read(&mut self) -> anyhow::Result<Option<Failure>> {
        let room = self.answer.get_mut(self.filled..).unwrap_or_default();
        ensure!(!room.is_empty(), "an answer is longer than {LONGEST_ANSWER} bytes");
        match self.stream.read(room) {
            Ok(0) => bail!("the proxy closed a connection: {}", String::from_utf8_lossy(&self.answer[..self.filled])),
            Ok(more) => self.filled += more,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(None),
            Err(error) => return Err(error).context("reading an answer"),
        }
        let answer = &self.answer[..self.filled];
        let Some(length) = answer_length(answer)? else { return Ok(None) };
        if answer.len() < length {
            return Ok(None);
        }
        ensure!(answer.len() == length, "bytes after an answer that nobody asked for");
        let failure = match answer.starts_with(b"HTTP/1.1 200 ") {
            true => Failure::None,
            false => Failure::Answer(String::from_utf8_lossy(answer).into_owned()),
        };
        self.filled = 0;
        Ok(Some(failure))
    }
}

/// Head and body together, once the head is complete.
fn answer_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("an answer's head is not text")?;
    ensure!(head.starts_with("HTTP/1.1 "), "not HTTP/1.1: {head}");
    let mut length = 0;
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line}"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().with_context(|| format!("not a length: {value}"))?;
        }
        ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "a chunked answer: {head}");
    }
    Ok(Some(end + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nserver: envoy\r\n\r\nok";
        assert_eq!(answer_length(answer).unwrap(), Some(answer.len()));
        assert_eq!(answer_length(&answer[..20]).unwrap(), None);
        assert_eq!(answer_length(b"HTTP/1.1 503 No\r\n\r\n").unwrap(), Some(19));
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        assert!(answer_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(answer_length(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
        assert!(answer_length(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn percentiles_of_an_empty_run_are_no_numbers() {
        assert!(Run::default().percentile(0.5).is_nan());
        let run = Run { nanoseconds: vec![1000, 2000, 3000], ..Run::default() };
        assert_eq!((run.percentile(0.0), run.percentile(0.5), run.percentile(1.0)), (1.0, 2.0, 3.0));
    }
}
