use jose::Algorithm;
use jose::dpop::Origin;
use wire::Secret;

use super::*;
use crate::engine::Portable;
use crate::reject::Cause;
use crate::request::host::Host;
use crate::request::path::PlainPath;
use crate::request::{Pair, Request};
use crate::time::UnixSeconds;

/// RFC 9449 section 7.1, figure 12.
const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZ\
    OXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMj\
    U2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN\
    0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9R\
    P35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const TOKEN: &[u8] = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const IAT: u64 = 1_562_262_618;

/// Section 6.1.
fn jkt() -> [u8; 32] {
    jose::base64url::decode("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I").unwrap().try_into().unwrap()
}

fn dpop(nonce_lifetime: Option<u64>) -> Dpop {
    let origins = ["https://resource.example.org", "https://other.example.org:8443"];
    Dpop {
        origins: origins.map(|origin| Origin::parse(origin).unwrap()).into(),
        algorithms: vec![Algorithm::ES256],
        max_age: 60,
        future_iat_tolerance: 5,
        nonce_lifetime,
        remembered_proofs: 1024,
        derived: Secret::new(&[7; 32]).unwrap().derive(),
    }
}

struct Sent {
    method: &'static str,
    path: &'static str,
    host: &'static str,
    is_dpop: bool,
    proofs: Vec<String>,
    token: &'static [u8],
    jkt: Option<[u8; 32]>,
    now: u64,
}

fn example() -> Sent {
    Sent {
        method: "GET",
        path: "/protectedresource?any=query",
        host: "resource.example.org",
        is_dpop: true,
        proofs: vec![PROOF.to_owned()],
        token: TOKEN,
        jkt: Some(jkt()),
        now: IAT,
    }
}

fn judge(dpop: &Dpop, sent: &Sent) -> Result<Option<Proven>, Cause> {
    let mut pairs: Vec<Pair<'_>> =
        vec![(b":method", sent.method.as_bytes()), (b":path", sent.path.as_bytes()), (b":authority", b"a")];
    pairs.extend(sent.proofs.iter().map(|proof| (HEADER.as_bytes(), proof.as_bytes())));
    let request = Request::from_pairs(&pairs).unwrap();
    let path = PlainPath::check(request.path()).unwrap();
    let host = Host::parse(sent.host.as_bytes()).unwrap();
    let shown = dpop.show(&request, &path, &host, sent.is_dpop).map_err(|rejection| rejection.cause)?;
    let now = UnixSeconds(sent.now);
    let judged = dpop.judge(false, sent.jkt.as_ref(), shown.as_deref(), sent.token, &Portable, now);
    judged.map_err(|rejection| rejection.cause)
}

#[test]
fn the_example_of_the_rfc_passes_at_its_time() {
    let dpop = dpop(None);
    let proven = judge(&dpop, &example()).unwrap().unwrap();
    assert_eq!((proven.until, proven.next_nonce), (UnixSeconds(IAT + 60), None));
    for (now, cause) in
        [(IAT + 60, None), (IAT + 61, Some(Cause::ProofOld)), (IAT - 5, None), (IAT - 6, Some(Cause::ProofFuture))]
    {
        assert_eq!(judge(&dpop, &Sent { now, ..example() }).err(), cause, "{}", now as i64 - IAT as i64);
    }
}

#[test]
fn it_counts_for_its_own_request_and_token_alone() {
    let dpop = dpop(None);
    for (sent, cause) in [
        (Sent { method: "POST", ..example() }, Cause::ProofHtm),
        (Sent { method: "HEAD", ..example() }, Cause::ProofHtm),
        (Sent { path: "/protectedresource/", ..example() }, Cause::ProofHtu),
        (Sent { host: "other.example.org", ..example() }, Cause::ProofHtu),
        (Sent { host: "third.example.org", ..example() }, Cause::ProofNoOrigin),
        (Sent { token: b"another", ..example() }, Cause::ProofAth),
        (Sent { jkt: Some([0; 32]), ..example() }, Cause::ProofOfOtherKey),
        (Sent { proofs: vec![], ..example() }, Cause::ProofMissing),
        (Sent { proofs: vec![PROOF.into(), PROOF.into()], ..example() }, Cause::ProofTwice),
        (Sent { proofs: vec![format!("{PROOF},{PROOF}")], ..example() }, Cause::ProofTwice),
        (Sent { proofs: vec!["a".repeat(8193)], ..example() }, Cause::ProofTooLong),
        (Sent { proofs: vec![PROOF.replace("2oW9RP", "2oW9RQ")], ..example() }, Cause::ProofSignature),
        (Sent { is_dpop: false, ..example() }, Cause::BoundUnderBearer),
        (Sent { is_dpop: false, proofs: vec![], ..example() }, Cause::BoundUnderBearer),
        (Sent { jkt: None, ..example() }, Cause::UnboundUnderDpop),
        (Sent { jkt: None, is_dpop: false, ..example() }, Cause::ProofOfUnbound),
    ] {
        assert_eq!(judge(&dpop, &sent).err(), Some(cause));
    }
    let bearer = Sent { jkt: None, is_dpop: false, proofs: vec![], ..example() };
    assert_eq!(judge(&dpop, &bearer), Ok(None));
}

#[test]
fn a_nonce_counts_for_its_key_and_time_alone() {
    let dpop = dpop(Some(300));
    let (key, now) = (jkt(), UnixSeconds(IAT));
    let nonce = dpop.new_nonce(&key, now).unwrap();
    let judged = |nonce: &str, key: &[u8; 32], seconds: i64| {
        dpop.judge_nonce(Some(nonce), key, UnixSeconds(IAT.checked_add_signed(seconds).unwrap()))
    };
    use super::nonce::Judged::{EndsSoon, Fresh};
    assert_eq!(judged(&nonce, &key, 0), Ok(Fresh));
    assert_eq!(judged(&nonce, &key, 200), Ok(Fresh));
    assert_eq!(judged(&nonce, &key, 201), Ok(EndsSoon));
    assert_eq!(judged(&nonce, &key, 300), Ok(EndsSoon));
    assert_eq!(judged(&nonce, &key, 301), Err(Cause::NonceOld));
    assert_eq!(judged(&nonce, &key, -5), Ok(Fresh));
    assert_eq!(judged(&nonce, &key, -6), Err(Cause::NonceForeign));
    assert_eq!(judged(&nonce, &[0; 32], 0), Err(Cause::NonceForeign));
    for bad in ["", "a", "AAAA", &nonce[..31], &format!("{nonce}A"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(judged(bad, &key, 0), Err(Cause::NonceForeign), "{bad}");
    }
    assert_eq!(dpop.judge_nonce(None, &key, now), Err(Cause::NonceMissing));
    let other = Dpop { derived: Secret::new(&[8; 32]).unwrap().derive(), ..self::dpop(Some(300)) };
    assert_eq!(other.judge_nonce(Some(&nonce), &key, now), Err(Cause::NonceForeign));
    assert_eq!(judge(&dpop, &example()).err(), Some(Cause::NonceMissing), "the example has no nonce");
}
