//! The tokens, minted once for all scenarios and written into complete requests.
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use mint::{Alg, SigningKey, random_id};
use serde_json::{Value, json};

use crate::machine::{self, Cores};

pub const ISSUER: &str = "https://login.example.com";
pub const AUDIENCE: &str = "orders";
/// Longer than any run.
const LIFETIME_SECONDS: u64 = 6 * 3600;
/// The difference in length between an RS256 and an HS256 signature in base64url, as bytes of payload.
const PADDING: usize = (342 - 43) * 3 / 4;

/// The tokens that a load sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tokens {
    /// A few, repeatedly. RS256.
    Repeated,
    /// The same, at a steady rate below saturation: sessions in use.
    Active,
    /// Many, in turn.
    Unique(Alg),
    /// Opaque tokens of the service's sessions: a few, repeatedly.
    Opaque,
    /// More opaque tokens than the filter's cache holds, in turn.
    UniqueOpaque,
}

impl Tokens {
    /// Do caches have the signature of each, after the first time?
    pub fn are_remembered(self) -> bool {
        // HS256 is sent to the one setup whose cache is large enough for all.
        matches!(self, Tokens::Repeated | Tokens::Active | Tokens::Opaque | Tokens::Unique(Alg::HS256))
    }

    pub fn name(self) -> String {
        match self {
            Tokens::Repeated => "repeated".to_owned(),
            Tokens::Active => "active".to_owned(),
            Tokens::Unique(alg) => format!("unique {alg}"),
            Tokens::Opaque => "opaque".to_owned(),
            Tokens::UniqueOpaque => "unique opaque".to_owned(),
        }
    }
}

pub struct Keys {
    keys: Vec<SigningKey>,
}

/// For each kind of load, requests ready to be sent.
pub struct Requests {
    of: HashMap<Tokens, Vec<Vec<u8>>>,
}

impl Keys {
    pub const ALGS: [Alg; 4] = [Alg::RS256, Alg::ES256, Alg::EdDSA, Alg::HS256];

    pub fn generate() -> Self {
        Self { keys: Self::ALGS.map(|alg| SigningKey::generate(alg, alg.name())).into() }
    }

    pub fn of(&self, alg: Alg) -> &SigningKey {
        self.keys.iter().find(|key| key.alg() == alg).expect("a key for each algorithm that is used")
    }

    /// RFC 7517 section 5, without the shared secret.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().filter_map(|key| key.public_jwk().ok()).collect::<Vec<_>>() })
    }
}

impl Requests {
    /// Mints on both cores, since nothing is measured yet.
    pub fn mint(keys: &Keys, repeated: usize, unique: usize, kinds: &[Tokens], cores: Cores) -> anyhow::Result<Self> {
        let now = now()?;
        let mut of = HashMap::new();
        for kind in kinds {
            let (alg, count) = match kind {
                Tokens::Repeated | Tokens::Active => (Alg::RS256, repeated),
                Tokens::Unique(alg) => (*alg, unique),
                // The service creates them.
                Tokens::Opaque | Tokens::UniqueOpaque => continue,
            };
            let key = keys.of(alg);
            of.insert(*kind, on_both(cores, count, |_| request(&key.mint(&claims(alg, now))))?);
        }
        Ok(Self { of })
    }

    /// Of tokens created elsewhere.
    pub fn add(&mut self, kind: Tokens, tokens: &[String]) {
        self.of.insert(kind, tokens.iter().map(|token| request(token)).collect());
    }

    pub fn of(&self, kind: Tokens) -> &[Vec<u8>] {
        self.of.get(&kind).map_or(&[], Vec::as_slice)
    }
}

/// Requests with the numbers below `count`, made by `make`, on both cores, since nothing is measured yet.
///
/// # Errors
/// There are no two such cores.
pub fn on_both(cores: Cores, count: usize, make: impl Fn(usize) -> Vec<u8> + Sync) -> anyhow::Result<Vec<Vec<u8>>> {
    let cores = [cores.proxy, cores.load];
    let share = count.div_ceil(cores.len());
    let mut requests = Vec::with_capacity(count);
    let make = &make;
    std::thread::scope(|scope| {
        let mut first = 0;
        let minters = cores.map(|core| {
            let numbers = first..(first + share).min(count);
            first = numbers.end;
            scope.spawn(move || -> anyhow::Result<Vec<Vec<u8>>> {
                machine::pin(core)?;
                Ok(numbers.map(make).collect())
            })
        });
        for minter in minters {
            requests.extend(minter.join().expect("a minter does not panic")?);
        }
        anyhow::Ok(())
    })?;
    Ok(requests)
}

/// # Errors
/// The clock is before 1970.
pub fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_secs())
}

/// The shortest token for which all kinds are checked: HS256, with its own session, user and client.
pub fn small(key: &SigningKey, issuer: &str, number: usize, now: u64) -> Vec<u8> {
    let (kid, exp) = (key.kid().unwrap_or_default(), now + LIFETIME_SECONDS);
    let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
    let payload = format!(
        r#"{{"iss":"{issuer}","aud":"{AUDIENCE}","iat":{now},"exp":{exp},"jti":"{number}","sid":"{number}","sub":"{number}","client_id":"{number}"}}"#
    );
    request(&key.sign(&header, &payload))
}

/// A new token, session, user and client each time, so that no answer about one applies to another.
fn claims(alg: Alg, now: u64) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + LIFETIME_SECONDS,
        "jti": random_id(), "sid": random_id(), "sub": random_id(), "client_id": random_id(),
        "scope": "orders:read orders:write", "name": "A user of some length", "email": "a.user@mail.example.com",
        "roles": ["reader", "writer"],
    });
    if alg == Alg::HS256 {
        claims["padding"] = json!("x".repeat(PADDING));
    }
    claims
}

fn request(token: &str) -> Vec<u8> {
    format!(
        "GET /api/orders/1 HTTP/1.1\r\nhost: api.example.com\r\nuser-agent: bench\r\naccept: */*\r\n\
         authorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}
