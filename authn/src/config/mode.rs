//! Whether something is enforced or only reported.
use serde::Deserialize;

choice! {
    /// The effect of a request that would be refused.
    #[derive(Default)]
    pub enum Mode {
        /// The request is refused.
        #[default]
        Enforce,
        /// It is only counted and logged.
        Report,
    }
}
