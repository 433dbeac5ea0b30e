//! Messages of the check. A written message is read back alike, a changed one is refused, and a correctly signed one is
//! read in full or refused.
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::sync::LazyLock;
use wire::check::{Asked, Needs, Question, Reply, StoreError};
use wire::{Answer, DerivedKeys, Retention, RevocationKey, Secret};

use crate::target::owned;

struct Secrets {
    ours: DerivedKeys,
    other: DerivedKeys,
    request_mac: [u8; 32],
    reply_mac: [u8; 32],
}

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let secret = Secret::new(&[7; 32]).expect("long enough");
    Secrets {
        ours: secret.derive(),
        other: Secret::new(&[8; 32]).expect("long enough").derive(),
        request_mac: secret.derive_key(b"check request mac"),
        reply_mac: secret.derive_key(b"check reply mac"),
    }
});

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = owned(&[b"", b"\0\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", &[0xff; 80]]);
    let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: 1_700_000_000 };
    let question = Question::new(&SECRETS.ours, [9; 16], needs, &[RevocationKey([1; 16])]).expect("one key");
    seeds.push(question.bytes().to_vec());
    let asked = Asked::read(std::slice::from_ref(&SECRETS.ours), question.bytes()).expect("a question of ours");
    seeds.push(asked.answers(&SECRETS.ours, Retention { token: 1, login: 2 }, &[Answer::Before(5)], &[]));
    seeds
}

pub fn check(input: &[u8]) {
    let ours = &SECRETS.ours;
    let secrets = [SECRETS.other.clone(), ours.clone()];
    let mut rest = input.iter().copied();
    let mut byte = || rest.next().unwrap_or(0);

    let needs =
        Needs { future_iat_tolerance_seconds: u16::from(byte()), now_seconds: u64::from(byte()) << (byte() % 56) };
    let keys: Vec<RevocationKey> = (0..1 + byte() % 4).map(|_| RevocationKey([byte(); 16])).collect();
    let answers: Vec<Answer> = (0..keys.len())
        .map(|_| match byte() % 3 {
            0 => Answer::Live,
            1 => Answer::Dead,
            _ => Answer::Before(u64::from(byte()) << (byte() % 56)),
        })
        .collect();
    let keeps = Retention { token: u32::from(byte()), login: u32::MAX - u32::from(byte()) };
    let question = Question::new(ours, [byte(); 16], needs, &keys).expect("one to four keys");
    let asked = Asked::read(&secrets, question.bytes()).expect("a question of ours");
    assert_eq!((asked.secret(), asked.needs(), asked.keys()), (1, needs, &keys[..]));
    assert!(asked.issuers().is_empty());
    let reply = asked.answers(ours, keeps, &answers, &[]);
    assert_eq!(
        question.read_reply(ours, 200, &reply),
        Ok(Ok(Reply { keeps, regions: wire::check::RegionsMoment::UNKNOWN, answers, claims: Vec::new() }))
    );
    let error = StoreError::ALL[usize::from(byte()) % StoreError::ALL.len()];
    assert_eq!(question.read_reply(ours, 503, &asked.error(ours, 503, error)), Ok(Err(error)));

    // Changed in transit.
    let (at, change) = (usize::from(byte()) << 8 | usize::from(byte()), byte().max(1));
    let changed = |bytes: &[u8]| {
        let mut changed = bytes.to_vec();
        let at = at % changed.len();
        changed[at] ^= change;
        changed
    };
    assert!(Asked::read(&secrets, &changed(question.bytes())).is_err());
    assert!(question.read_reply(ours, 200, &changed(&reply)).is_err());
    assert!(
        question.read_reply(&SECRETS.other, 200, &reply).is_err() && question.read_reply(ours, 201, &reply).is_err()
    );
    assert!(Asked::read(&secrets[..1], question.bytes()).is_err());

    // Any bytes, unsigned and signed with the right secret.
    for whole in [input.to_vec(), signed(input, &SECRETS.request_mac)] {
        if let Ok(asked) = Asked::read(&secrets, &whole) {
            let needs = asked.needs();
            let needs = if asked.asks_about_regions() { needs.asking_about_regions() } else { needs };
            let again = match asked.keys() {
                [] => Question::about_issuers(ours, nonce(&whole), needs, asked.issuers()),
                keys => Question::new(ours, nonce(&whole), needs, keys),
            };
            // An empty or too long issuer is read, but would not be written.
            if let Ok(again) = again {
                assert_eq!(again.bytes(), whole, "read in full");
            }
        }
    }
    for whole in [input.to_vec(), signed(input, &SECRETS.reply_mac)] {
        assert!(question.read_reply(ours, 200, &whole).is_err() || whole == reply, "a reply to another question");
    }
}

/// Without its last 32 bytes, which are the MAC of a question.
fn signed(bytes: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let content = bytes.split_last_chunk::<32>().map_or(bytes, |(content, _)| content);
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(content);
    [content, &mac.finalize().into_bytes()].concat()
}

fn nonce(question: &[u8]) -> [u8; 16] {
    question[12..28].try_into().expect("16 bytes")
}
