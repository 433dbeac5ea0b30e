//! The signs of a hijacked session.
use serde::{Deserialize, Serialize};

/// A sign that somebody else uses a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// It is used from a network where it was not seen before.
    Network,
    /// It is used from a network again, although it was seen in another one just before.
    TwoNetworks,
    /// It is used by a user agent that was not seen before.
    Agent,
    /// It is used with a client certificate that was not seen before.
    Certificate,
    /// It is used in a country where it was not seen before.
    Country,
    /// It was seen at two places, and nobody travels so fast.
    Travel,
}

impl Signal {
    pub const ALL: [Self; 6] =
        [Self::Network, Self::TwoNetworks, Self::Agent, Self::Certificate, Self::Country, Self::Travel];

    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::TwoNetworks => "two_networks",
            Self::Agent => "agent",
            Self::Certificate => "certificate",
            Self::Country => "country",
            Self::Travel => "travel",
        }
    }
}
