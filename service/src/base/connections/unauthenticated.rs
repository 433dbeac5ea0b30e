//! Which connections are unauthenticated, by address, and which of them is closed to make room.
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::Extension;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Notify;

/// Connections that are not closed for others while a request of theirs is in progress ([`Connection::protect`]): in all,
/// and of one address, which may send nothing but rubbish.
const MAX_PROTECTED: usize = 64;
const MAX_PROTECTED_OF_PEER: usize = 8;

/// In the extensions of each request: the connection that it came on.
#[derive(Debug, Clone)]
pub struct Connection(Arc<State>);

#[derive(Debug)]
struct State {
    authenticated: AtomicBool,
    address: IpAddr,
    /// What counts as one address.
    peer: IpAddr,
    /// In the order of acceptance.
    number: u64,
    makes_room: Notify,
    unauthenticated: Arc<Unauthenticated>,
}

/// The unauthenticated connections of one listener.
#[derive(Debug, Default)]
pub struct Unauthenticated(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Those that may be closed for others, the oldest of each address first.
    by_peer: HashMap<IpAddr, BTreeMap<u64, Weak<State>>>,
    /// How many of each address may not.
    protected: HashMap<IpAddr, usize>,
}

/// An unauthenticated connection that is not closed for others as long as this lives.
#[derive(Debug)]
pub struct Protected(Arc<State>);

/// Middleware: while such a request is in progress, its connection is not closed for others. Senders of provider events
/// have no secret of ours.
pub async fn protect(Extension(connection): Extension<Connection>, request: Request, next: Next) -> Response {
    let _protected = connection.protect();
    next.run(request).await
}

impl Connection {
    /// A request on this connection was made with our secret.
    pub fn authenticate(&self) {
        if !self.0.authenticated.swap(true, Ordering::Relaxed) {
            self.0.unauthenticated.leave(self.0.peer, self.0.number);
        }
    }

    pub fn is_authenticated(&self) -> bool {
        self.0.authenticated.load(Ordering::Relaxed)
    }

    /// Until the returned value is dropped, this connection is not closed for others. `None`: too many are protected.
    pub fn protect(&self) -> Option<Protected> {
        let state = &self.0;
        let mut table = state.unauthenticated.lock();
        let of_peer = table.protected.get(&state.peer).copied().unwrap_or_default();
        if of_peer >= MAX_PROTECTED_OF_PEER || table.protected.values().sum::<usize>() >= MAX_PROTECTED {
            return None;
        }
        // Not in the table: it is authenticated, protected by another request, or about to be closed.
        table.take(state.peer, state.number)?;
        *table.protected.entry(state.peer).or_default() += 1;
        Some(Protected(Arc::clone(state)))
    }

    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// Returns when this connection is to be closed to make room.
    pub(super) async fn closing(&self) {
        self.0.makes_room.notified().await;
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        let state = &self.0;
        let mut table = state.unauthenticated.lock();
        if let Some(protected) = table.protected.get_mut(&state.peer) {
            *protected = protected.saturating_sub(1);
            if *protected == 0 {
                table.protected.remove(&state.peer);
            }
        }
        if !state.authenticated.load(Ordering::Relaxed) {
            table.by_peer.entry(state.peer).or_default().insert(state.number, Arc::downgrade(state));
        }
    }
}

impl Table {
    fn take(&mut self, peer: IpAddr, number: u64) -> Option<Weak<State>> {
        let of_peer = self.by_peer.get_mut(&peer)?;
        let taken = of_peer.remove(&number);
        if of_peer.is_empty() {
            self.by_peer.remove(&peer);
        }
        taken
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if !*self.authenticated.get_mut() {
            self.unauthenticated.leave(self.peer, self.number);
        }
    }
}

impl Unauthenticated {
    /// The new connection, and whether the oldest one of its address was closed for it.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> (Connection, bool) {
        let address = peer.to_canonical();
        let peer = network_of(peer);
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let state = Arc::new(State {
            authenticated: AtomicBool::new(false),
            address,
            peer,
            number,
            makes_room: Notify::new(),
            unauthenticated: Arc::clone(self),
        });
        let of_peer = table.by_peer.entry(peer).or_default();
        let oldest = if of_peer.len() >= most.max(1) { of_peer.pop_first() } else { None };
        of_peer.insert(number, Arc::downgrade(&state));
        drop(table);
        // Not under the lock: dropping the last reference to a connection takes it.
        let made_room = oldest.is_some_and(|(_, oldest)| close(&oldest));
        (Connection(state), made_room)
    }

    /// Whether there was another one than this to close.
    pub fn close_oldest_except(&self, own: &Connection) -> bool {
        let oldest = {
            let mut table = self.lock();
            let oldest = table
                .by_peer
                .iter()
                .filter_map(|(peer, own)| own.first_key_value().map(|(number, _)| (*number, *peer)))
                .filter(|(number, _)| *number != own.0.number)
                .min();
            oldest.and_then(|(number, peer)| table.by_peer.get_mut(&peer)?.remove(&number))
        };
        oldest.is_some_and(|oldest| close(&oldest))
    }

    fn leave(&self, peer: IpAddr, number: u64) {
        self.lock().take(peer, number);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(state: &Weak<State>) -> bool {
    let state = state.upgrade();
    state.as_ref().inspect(|state| state.makes_room.notify_one()).is_some()
}

/// One IPv6 host has all addresses of its /64.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests;
