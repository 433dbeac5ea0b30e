//! What a refused token says about itself, for the log: times, key, issuer and audience as presented, and the subject
//! only as its revocation key. Nothing is judged here.
use jose::json::{Json, Object};
use wire::{Kind, RevocationKey};

use super::{Questions, Verified};
use crate::claims::members::{self, Round};
use crate::policy::{Issuer, Policy};
use crate::revocation::Verdict;
use crate::time::UnixSeconds;

/// Text in it may be an attacker's. It is not escaped, and at most as long as a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSummary {
    pub kid: Option<String>,
    /// `iss` as presented; of an introspected token, the configured issuer.
    pub issuer: Option<String>,
    /// The first few values of `aud`.
    pub audience: Vec<String>,
    /// Seconds since `iat`; negative if it lies in the future.
    pub age: Option<i64>,
    /// Seconds until `exp`; negative if it has passed.
    pub expires_in: Option<i64>,
    /// The clock difference that the issuer's entry allows, in seconds.
    pub skew: Option<u64>,
    /// The revocation key of the user.
    pub subject: Option<RevocationKey>,
    /// The revocation that ended the token, if that is known.
    pub ended_by: Option<(Kind, RevocationKey)>,
}

const MAX_AUDIENCES: usize = 4;

impl Policy {
    /// Of a token that may be forged.
    pub fn summary_of_unverified(&self, token: &[u8], now: UnixSeconds) -> TokenSummary {
        let Ok(unverified) = self.unverified(token) else { return TokenSummary::default() };
        let kid = unverified.header().kid.clone();
        let Ok(payload) = unverified.parse_payload() else { return TokenSummary { kid, ..TokenSummary::default() } };
        let Some(claims) = payload.as_object() else { return TokenSummary { kid, ..TokenSummary::default() } };
        let name = members::unverified_issuer(claims).ok();
        let issuer = name.and_then(|name| self.issuers.get(self.issuer_index(name)?));
        TokenSummary { kid, ..self.summary_of_claims(claims, name, issuer, now) }
    }

    pub fn summary_of(&self, verified: &Verified, now: UnixSeconds) -> TokenSummary {
        let ended_by = self.ended_by(verified);
        if !verified.is_opaque() {
            return TokenSummary { ended_by, ..self.summary_of_unverified(&verified.token, now) };
        }
        let issuer = self.issuers.get(verified.issuer);
        let name = issuer.map(|issuer| issuer.issuer.as_str());
        match verified.parse_payload() {
            Ok(Json::Object(claims)) => TokenSummary { ended_by, ..self.summary_of_claims(&claims, name, issuer, now) },
            Ok(_) | Err(_) => TokenSummary { ended_by, ..TokenSummary::default() },
        }
    }

    fn summary_of_claims(
        &self,
        claims: &Object<'_>,
        name: Option<&str>,
        issuer: Option<&Issuer>,
        now: UnixSeconds,
    ) -> TokenSummary {
        let time = |name| members::numeric_date(claims, name, Round::Down).ok().flatten();
        // NumericDates are checked to be before the year 10000.
        let since = |time: u64| i64::try_from(now.0).unwrap_or(i64::MAX).saturating_sub_unsigned(time);
        let audience = match claims.claim("aud") {
            Some(Json::String(one)) => vec![one.to_string()],
            Some(Json::Array(several)) => {
                several.iter().filter_map(Json::as_str).take(MAX_AUDIENCES).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let user = issuer.and_then(|issuer| issuer.identifiers.find(Kind::User, claims).ok().flatten());
        let subject = self
            .revocation()
            .zip(name)
            .zip(user)
            .map(|((revocation, name), user)| revocation.derived.revocation_key(Kind::User, name, user.as_bytes()));
        TokenSummary {
            kid: None,
            issuer: name.map(str::to_owned),
            audience,
            age: time("iat").map(since),
            expires_in: time("exp").map(|exp| since(exp).saturating_neg()),
            skew: issuer.map(|issuer| issuer.skew),
            subject,
            ended_by: None,
        }
    }

    /// By the newest verdict.
    fn ended_by(&self, verified: &Verified) -> Option<(Kind, RevocationKey)> {
        let Questions::Query(query) = &verified.questions else { return None };
        let (_, Verdict::Dead { by }) = query.verdict()? else { return None };
        let key = query.keys.get(by.get()?)?;
        self.revocation_keys(verified).ok()?.into_iter().find(|(_, other)| other == key)
    }
}
