//! A Redis of the test's own, with its data on disk, so that it can be stopped and come back.
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Directory, Process, START_DEADLINE, wait_until};

/// Another process may take the port between our choice and Redis's start.
const PORT_ATTEMPTS: usize = 5;

pub struct Redis {
    process: Process,
    address: SocketAddr,
    data: PathBuf,
    options: Vec<String>,
    file: Option<String>,
}

impl Redis {
    /// Append-only with every write on disk, and no eviction, as the service requires.
    pub async fn start(directory: &Directory) -> Self {
        Self::start_with(directory, &[]).await
    }

    /// With more options, as on the command line: `&["--maxmemory-policy", "allkeys-lru"]`.
    pub async fn start_with(directory: &Directory, options: &[&str]) -> Self {
        Self::start_in(directory.path(), options).await
    }

    /// One of several: with its files in a directory of its own, which is made if need be.
    pub async fn start_in(data: &Path, options: &[&str]) -> Self {
        Self::start_by(None, data, options).await
    }

    /// From a configuration file, with nothing added but its place and these options.
    pub async fn start_from(file: &str, data: &Path, options: &[&str]) -> Self {
        Self::start_by(Some(file.to_owned()), data, options).await
    }

    async fn start_by(file: Option<String>, data: &Path, options: &[&str]) -> Self {
        let data = data.to_path_buf();
        std::fs::create_dir_all(&data).expect("the stack's directory takes another");
        for _ in 0..PORT_ATTEMPTS {
            let address = free_port();
            // `{port}` and `{other-port}` are filled in here: ports are known only now.
            let other = free_port().port().to_string();
            let place =
                |text: &&str| text.replace("{port}", &address.port().to_string()).replace("{other-port}", &other);
            let options: Vec<_> = options.iter().map(place).collect();
            let mut redis = Self {
                process: spawn(file.as_deref(), &data, address, &options),
                address,
                file: file.clone(),
                data: data.clone(),
                options: options.clone(),
            };
            if redis.is_ready().await {
                return redis;
            }
        }
        panic!("redis-server does not start: see redis.log in {}", data.display());
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// [`Redis::restart`] with more options, from now on.
    pub async fn restart_with(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
        self.restart().await;
    }

    /// Starts it again, on the same port, with the data and the options that it had.
    pub async fn restart(&mut self) {
        self.process.stop();
        self.process = spawn(self.file.as_deref(), &self.data, self.address, &self.options);
        assert!(self.is_ready().await, "redis-server does not start again:\n{}", self.process.log_tail());
    }

    /// Sends one command, each argument its own bulk string, and returns the reply as it came (RESP 2).
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn command(&self, arguments: &[&str]) -> io::Result<String> {
        command(self.address, arguments).await
    }

    /// The value that an option was started with.
    pub fn option(&self, name: &str) -> Option<String> {
        let at = self.options.iter().position(|option| option == name)?;
        self.options.get(at + 1).cloned()
    }

    /// Empties it, the sentinel included.
    pub async fn flush(&self) {
        let reply = self.command(&["FLUSHALL"]).await.expect("Redis runs");
        assert_eq!(reply, "+OK\r\n");
    }

    async fn is_ready(&mut self) -> bool {
        let address = self.address;
        let is_tls = self.options.iter().any(|option| option == "--tls-port");
        let process = &mut self.process;
        let mut pings = false;
        wait_until(START_DEADLINE, async || {
            pings = ping(address, is_tls).await;
            pings || !process.is_running()
        })
        .await;
        pings
    }
}

/// One command, as [`Redis::command`].
///
/// # Errors
/// The connection fails.
pub async fn command(address: SocketAddr, arguments: &[&str]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = format!("*{}\r\n", arguments.len());
    for argument in arguments {
        request.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
    }
    // Redis answers in order, and closes after QUIT: the bytes until then are the whole reply.
    request.push_str("*1\r\n$4\r\nQUIT\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    Ok(reply.strip_suffix("+OK\r\n").unwrap_or(&reply).to_owned())
}

/// Whether it answers: well, or that it wants a password first; over TLS, at all.
async fn ping(address: SocketAddr, is_tls: bool) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut reply = [0; 5];
    if is_tls {
        return true;
    }
    let is_answered = stream.write_all(b"PING\r\n").await.is_ok() && stream.read_exact(&mut reply).await.is_ok();
    is_answered && (&reply == b"+PONG" || &reply == b"-NOAU")
}

fn spawn(file: Option<&str>, data: &Path, address: SocketAddr, options: &[String]) -> Process {
    let mut command = Command::new("redis-server");
    match file {
        Some(file) => {
            command.arg(file);
        }
        None => {
            command
                .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
                .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
                .args(["--maxmemory-policy", "noeviction", "--daemonize", "no"]);
        }
    }
    command.arg("--dir").arg(data).args(options);
    Process::start("redis", command, data)
}

/// Redis cannot report the port that it took, so the kernel is asked first.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    listener.local_addr().expect("a bound socket has an address")
}
