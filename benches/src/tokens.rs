//! The tokens, minted once for all scenarios and written into complete requests.
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use mint::{Alg, Proof, SigningKey, random_id};
use serde_json::{Value, json};

use crate::machine::{self, Cores};

pub const ISSUER: &str = "https://login.example.com";
pub const AUDIENCE: &str = "orders";
/// Scheme and host of the requests, as a proof names them.
pub const ORIGIN: &str = "https://api.example.com";
const TARGET: &str = "https://api.example.com/api/orders/1";
const AGENT: &str = "bench";
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
    /// A few, repeatedly, with claims that name the client of the load. RS256.
    OfClient,
    /// The same, bound to a key of the client, each request with a new proof of it by ES256.
    Proven,
}

impl Tokens {
    /// Do caches have the signature of each, after the first time?
    pub fn are_remembered(self) -> bool {
        // HS256 is sent to the one setup whose cache is large enough for all.
        use Tokens::{Active, OfClient, Opaque, Repeated, Unique};
        matches!(self, Repeated | Active | Opaque | OfClient | Unique(Alg::HS256))
    }

    pub fn name(self) -> String {
        match self {
            Tokens::Repeated => "repeated".to_owned(),
            Tokens::Active => "active".to_owned(),
            Tokens::Unique(alg) => format!("unique {alg}"),
            Tokens::Opaque => "opaque".to_owned(),
            Tokens::UniqueOpaque => "unique opaque".to_owned(),
            Tokens::OfClient => "of client".to_owned(),
            Tokens::Proven => "with proofs".to_owned(),
        }
    }
}

pub struct Keys {
    keys: Vec<SigningKey>,
}

/// For each kind of load, requests ready to be sent.
pub struct Requests {
    of: HashMap<Tokens, Vec<Vec<u8>>>,
    /// The key of the client, and tokens that are bound to it.
    bound: (SigningKey, Vec<String>),
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
        let client = SigningKey::generate(Alg::ES256, "client");
        let mut bound = Vec::new();
        for kind in kinds {
            let (alg, count) = match kind {
                Tokens::Repeated | Tokens::Active => (Alg::RS256, repeated),
                Tokens::Unique(alg) => (*alg, unique),
                Tokens::OfClient => {
                    let key = keys.of(Alg::RS256);
                    let make = |_| request("Bearer", &key.mint(&of_client(now)), None);
                    of.insert(*kind, (0..repeated).map(make).collect());
                    continue;
                }
                Tokens::Proven => {
                    let cnf = json!({ "jkt": client.thumbprint() });
                    let claims = || {
                        let mut claims = of_client(now);
                        claims["cnf"] = cnf.clone();
                        claims
                    };
                    bound = (0..repeated).map(|_| keys.of(Alg::RS256).mint(&claims())).collect();
                    continue;
                }
                // The service creates them.
                Tokens::Opaque | Tokens::UniqueOpaque => continue,
            };
            let key = keys.of(alg);
            of.insert(*kind, on_both(cores, count, |_| request("Bearer", &key.mint(&claims(alg, now)), None))?);
        }
        Ok(Self { of, bound: (client, bound) })
    }

    /// Of tokens created elsewhere.
    pub fn add(&mut self, kind: Tokens, tokens: &[String]) {
        self.of.insert(kind, tokens.iter().map(|token| request("Bearer", token, None)).collect());
    }

    pub fn of(&self, kind: Tokens) -> &[Vec<u8>] {
        self.of.get(&kind).map_or(&[], Vec::as_slice)
    }
}

impl Requests {
    /// So many requests of [`Tokens::Proven`]. A proof counts once and for a minute, so they are for one window.
    ///
    /// # Errors
    /// The clock is before 1970.
    pub fn prove(&self, count: usize, cores: Cores) -> anyhow::Result<Vec<Vec<u8>>> {
        let ((client, tokens), iat) = (&self.bound, now()?);
        on_both(cores, count, |number| {
            let token = &tokens[number % tokens.len()];
            let proof = Proof { method: "GET", url: TARGET, token: Some(token), nonce: None, iat };
            request("DPoP", token, Some(&client.prove(&proof).expect("an asymmetric key")))
        })
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
    request("Bearer", &key.sign(&header, &payload), None)
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

/// The same, with claims for the bindings of the scenarios.
fn of_client(now: u64) -> Value {
    let mut claims = claims(Alg::RS256, now);
    claims["ip"] = json!("127.0.0.1");
    // `ath` of a proof is the same: SHA-256 in base64url.
    claims["ua"] = json!(mint::ath(AGENT));
    claims
}

fn request(scheme: &str, token: &str, proof: Option<&str>) -> Vec<u8> {
    let proof = proof.map(|proof| format!("dpop: {proof}\r\n")).unwrap_or_default();
    format!(
        "GET /api/orders/1 HTTP/1.1\r\nhost: api.example.com\r\nuser-agent: {AGENT}\r\naccept: */*\r\n\
         authorization: {scheme} {token}\r\n{proof}\r\n"
    )
    .into_bytes()
}
