//! A redis-server of a test's own, on a port from the kernel, stopped at the test's end. Shared by path with the tests of
//! the service.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CLUSTER: [&str; 6] =
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1"];

pub struct Redis {
    child: Child,
    pub port: u16,
    dir: tempfile::TempDir,
    arguments: &'static [&'static str],
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A Cluster of one primary, which has all slots.
    pub fn start_cluster() -> Self {
        let redis = Self::start_with(&CLUSTER);
        redis.add_slots(0..16384);
        redis.await_cluster();
        redis
    }

    /// A Cluster of two primaries with half of the slots each.
    pub fn start_cluster_of_two() -> [Self; 2] {
        let [one, other] = [Self::start_with(&CLUSTER), Self::start_with(&CLUSTER)];
        one.add_slots(0..8192);
        other.add_slots(8192..16384);
        other.ask(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]);
        one.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
        one.await_cluster();
        other.await_cluster();
        [one, other]
    }

    /// One by one: ADDSLOTSRANGE came with Redis 7.
    fn add_slots(&self, slots: std::ops::Range<u16>) {
        let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
        let words: Vec<_> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
        assert_eq!(self.ask(&words), "+OK\r\n");
    }

    fn await_cluster(&self) {
        eventually(Duration::from_secs(10), || {
            self.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
        });
    }

    fn start_with(arguments: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Somebody may take the port between our letting go and Redis's binding.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = spawn(port, &dir, arguments) {
                return Self { child, port, dir, arguments };
            }
        }
        panic!("redis-server did not start");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The raw reply.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(self.port, words).unwrap()
    }

    pub fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port, from what it had written.
    pub fn restart(&mut self) {
        eventually(Duration::from_secs(5), || {
            spawn(self.port, &self.dir, self.arguments).map(|child| self.child = child)
        });
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too. It may have been killed by the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, dir: &tempfile::TempDir, arguments: &[&str]) -> Option<Child> {
    // Another server that speaks the same protocol, or another version.
    let server = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut child = Command::new(server)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(dir.path())
        .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server must be installed");
    let deadline = Instant::now() + Duration::from_secs(5);
    // Another test's server may have the port, and answers there until ours has ended for it.
    let own = format!("process_id:{}\r\n", child.id());
    let says = |words: &[&str], expected: &str| ask(port, words).is_ok_and(|reply| reply.contains(expected));
    loop {
        if says(&["INFO", "server"], &own) && says(&["PING"], "+PONG") {
            return Some(child);
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(Instant::now() < deadline, "redis-server did not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ask(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(text.as_bytes())?;
    let mut reply = [0; 4096];
    let read = stream.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..read]).into_owned())
}

/// Polls until `hold` gives something.
pub fn eventually<T>(within: Duration, mut hold: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(held) = hold() {
            return held;
        }
        assert!(Instant::now() < deadline, "not within {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
