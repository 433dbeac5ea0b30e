//! What the service tells systemd about itself: the protocol of sd_notify(3). Without `NOTIFY_SOCKET` nothing is said.
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

pub struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// # Errors
    /// `NOTIFY_SOCKET` names no socket.
    pub fn from_environment() -> Result<Self> {
        let socket = match std::env::var("NOTIFY_SOCKET") {
            Ok(address) if !address.is_empty() => {
                Some(connect(&address).with_context(|| format!("NOTIFY_SOCKET {address}"))?)
            }
            _ => None,
        };
        // Twice within the time after which systemd counts us as hanging.
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let watchdog = watchdog.filter(|_| socket.is_some()).map(|time: u64| Duration::from_micros(time.max(2) / 2));
        Ok(Self { socket, watchdog })
    }

    /// The listeners are bound.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// A new configuration is being read. [`Self::ready`] says that this is over. With `Type=notify-reload`, systemd takes it as
    /// the answer to its signal by the time in it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = Duration::try_from(now).unwrap_or_default().as_micros();
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Tells the watchdog, as long as this is polled, that the runtime makes progress.
    pub async fn keep_alive(&self) {
        let Some(pause) = self.watchdog else { return std::future::pending().await };
        loop {
            self.say("WATCHDOG=1");
            tokio::time::sleep(pause).await;
        }
    }

    fn say(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(%error, state, "systemd was not told");
        }
    }
}

/// A path, or the name of an abstract socket after `@`.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The service never waits for its supervisor.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_reaches_a_socket_by_path_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("portcullis-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (heard, address) in [(by_path, path.to_str().unwrap().to_owned()), (by_name, format!("@{name}"))] {
            let supervisor = Supervisor { socket: Some(connect(&address).unwrap()), watchdog: None };
            supervisor.ready();
            supervisor.stopping();
            let mut bytes = [0; 64];
            for said in ["READY=1", "STOPPING=1"] {
                let length = heard.recv(&mut bytes).unwrap();
                assert_eq!(std::str::from_utf8(&bytes[..length]), Ok(said));
            }
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        assert!(connect("/nonexistent/notify").is_err());
        assert!(connect("@portcullis-test-that-nobody-binds").is_err());
    }
}
