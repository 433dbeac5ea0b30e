//! Where Redis is, for every verb that speaks to it.
use clap::Args;

#[derive(Args)]
pub struct Redis {
    /// Where Redis is.
    #[arg(
        long = "redis",
        env = "PORTCULLIS_REDIS",
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true
    )]
    pub url: String,
}
