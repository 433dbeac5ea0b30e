//! The login that a rule requires, or that is demanded of a session, by `acr` and `auth_time` (RFC 9470).
use jose::json::Object;

use crate::claims::members::{auth_time, optional_string};
use crate::config::Mode;
use crate::reject::{Cause, Rejection};
use crate::time::UnixSeconds;

/// A requirement that compiled: at least one of the two.
#[derive(Debug, Clone)]
pub(crate) struct StepUp {
    /// Empty: any.
    pub(crate) acr_values: Vec<String>,
    pub(crate) max_age: Option<u64>,
    pub(crate) mode: Mode,
}

/// When a login becomes too old for a rule: its age grows while the token stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) recent_until: UnixSeconds,
    pub(crate) mode: Mode,
}

impl StepUp {
    pub(crate) fn check_acr(&self, claims: &Object<'_>) -> Result<(), Rejection> {
        if self.acr_values.is_empty() {
            return Ok(());
        }
        match optional_string(claims, "acr")? {
            None => Err(Cause::AcrMissing.into()),
            Some(acr) if self.acr_values.iter().any(|accepted| accepted == acr) => Ok(()),
            Some(_) => Err(Cause::AcrNotAccepted.into()),
        }
    }

    /// `None` if a login of any age is accepted.
    pub(crate) fn login(&self, claims: &Object<'_>) -> Result<Option<Login>, Rejection> {
        let Some(max_age) = self.max_age else { return Ok(None) };
        let Some(auth_time) = auth_time(claims)? else { return Err(Cause::LoginTimeMissing.into()) };
        Ok(Some(Login { recent_until: UnixSeconds(auth_time.saturating_add(max_age)), mode: self.mode }))
    }

    /// When the user logged in, in a way that is accepted; 0 if that is not known.
    pub(crate) fn time_of_login(&self, claims: &Object<'_>) -> UnixSeconds {
        let accepted = self.check_acr(claims).and_then(|()| auth_time(claims));
        UnixSeconds(accepted.ok().flatten().unwrap_or(0))
    }

    /// `error_description` of the challenge: the texts of RFC 9470 section 3.
    pub(crate) fn description(&self) -> &'static str {
        match (self.acr_values.as_slice(), self.max_age) {
            ([], _) => "More recent authentication is required",
            (_, None) => "A different authentication level is required",
            (_, Some(_)) => "A different authentication level or a more recent authentication is required",
        }
    }

    /// The parameters of the challenge, RFC 9470 section 3.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = String> {
        let acr_values = (!self.acr_values.is_empty()).then(|| format!("acr_values=\"{}\"", self.acr_values.join(" ")));
        acr_values.into_iter().chain(self.max_age.map(|max_age| format!("max_age=\"{max_age}\"")))
    }
}

impl Login {
    /// An age of exactly `max_age` is accepted (OpenID Connect Core section 3.1.2.1).
    pub(crate) fn check(self, now: UnixSeconds) -> Result<(), Rejection> {
        if now > self.recent_until { Err(Cause::LoginNotRecent.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use jose::json::Json;

    use super::*;

    fn login(max_age: u64, claims: &str) -> Result<Option<Login>, Cause> {
        let step_up = StepUp { acr_values: Vec::new(), max_age: Some(max_age), mode: Mode::Enforce };
        let json = Json::parse(claims.as_bytes()).unwrap();
        step_up.login(json.as_object().unwrap()).map_err(|rejection| rejection.cause)
    }

    #[test]
    fn a_login_is_recent_until_max_age_has_passed() {
        let login = login(300, r#"{"auth_time":1000}"#).unwrap().unwrap();
        assert!(login.check(UnixSeconds(1300)).is_ok());
        assert_eq!(login.check(UnixSeconds(1301)).unwrap_err().cause, Cause::LoginNotRecent);
    }

    #[test]
    fn a_login_at_an_unknown_time_is_not_recent() {
        for claims in ["{}", r#"{"auth_time":0}"#, r#"{"iat":1000}"#] {
            assert_eq!(login(300, claims), Err(Cause::LoginTimeMissing), "{claims}");
        }
        assert_eq!(login(300, r#"{"auth_time":"1000"}"#), Err(Cause::TimeNotNumber));
    }
}
