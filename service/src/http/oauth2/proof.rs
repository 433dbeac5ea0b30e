//! DPoP proofs in token requests (RFC 9449 section 5).
use std::time::Duration;

use axum::http::HeaderMap;
use jose::Algorithm;
use jose::base64url;
use jose::dpop::{Proof, TargetUri};
use store::{Claim, PROOF, ReplayGuard};

use super::error::OAuthError;
use crate::base::clock::unix_seconds;
use crate::base::signature::AwsLcKey;

/// The algorithms that may sign proofs.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256];
/// How old `iat` may be, and how far ahead of our clock, in seconds.
const MAX_AGE: u64 = 60;
const AHEAD: u64 = 5;

/// The thumbprint of the key that the client has proved to have. `None`: it sent no proof, or no proofs count here.
///
/// # Errors
/// `invalid_dpop_proof`, also for a proof that was used before.
pub async fn proved_key(
    url: Option<&TargetUri>,
    headers: &HeaderMap,
    replay_guard: &dyn ReplayGuard,
) -> Result<Option<[u8; 32]>, OAuthError> {
    let mut proofs = headers.get_all("dpop").iter();
    let (Some(url), Some(text)) = (url, proofs.next()) else { return Ok(None) };
    if proofs.next().is_some() {
        return Err(OAuthError::InvalidDpopProof("there is more than one proof"));
    }
    let proof = judge(url, text.as_bytes(), unix_seconds()).map_err(OAuthError::InvalidDpopProof)?;
    let name = format!("{PROOF}{}", base64url::encode(proof.digest()));
    match replay_guard.claim(&name, Duration::from_secs(MAX_AGE.saturating_add(AHEAD).saturating_add(1))).await? {
        Claim::Claimed => Ok(Some(*proof.thumbprint())),
        Claim::Pending | Claim::Done => Err(OAuthError::InvalidDpopProof("the proof was used before")),
    }
}

fn judge<'t>(url: &TargetUri, text: &'t [u8], now: u64) -> Result<Proof<'t>, &'static str> {
    let proof = Proof::parse(text, &ALGORITHMS).map_err(|_| "the proof is not a DPoP proof with its public key")?;
    let claims = proof.claims();
    if claims.htm != "POST" || TargetUri::parse(&claims.htu).as_ref() != Some(url) {
        return Err("the proof is for another request");
    }
    if now > claims.iat.saturating_add(MAX_AGE) || claims.exp.is_some_and(|exp| now >= exp) {
        return Err("the proof is too old");
    }
    let latest = now.saturating_add(AHEAD);
    if claims.iat > latest || claims.nbf.is_some_and(|nbf| nbf > latest) {
        return Err("the proof is of the future");
    }
    proof.verify::<AwsLcKey>().map_err(|_| "the proof's signature does not match its key")?;
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9449 section 4.1.
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoU\
        klDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNy\
        diI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY2\
        9tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nf\
        bV37xRZT3Lg";
    const IAT: u64 = 1_562_262_616;

    #[test]
    fn the_example_of_the_rfc_counts_at_its_time_and_endpoint() {
        let url = |text: &str| TargetUri::parse(text).unwrap();
        let ours = url("https://server.example.com/token");
        let proof = judge(&ours, PROOF.as_bytes(), IAT).unwrap();
        assert_eq!(base64url::encode(proof.thumbprint()), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert!(judge(&ours, PROOF.as_bytes(), IAT + 60).is_ok() && judge(&ours, PROOF.as_bytes(), IAT - 5).is_ok());
        assert!(judge(&ours, PROOF.as_bytes(), IAT + 61).is_err() && judge(&ours, PROOF.as_bytes(), IAT - 6).is_err());
        for other in
            ["https://server.example.com/token/", "http://server.example.com/token", "https://other.example/token"]
        {
            assert!(judge(&url(other), PROOF.as_bytes(), IAT).is_err(), "{other}");
        }
        assert!(judge(&ours, PROOF.replace(".2-Gx", ".2-Gy").as_bytes(), IAT).is_err());
    }
}
