//! Targets for fuzzing: each takes any bytes and panics where a property does not hold. [`TARGETS`] are run for a short
//! time by this crate's tests, and as long as you like by cargo-fuzz (`fuzz/libfuzzer`).
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a target says that a property does not hold"
)]
#![forbid(unsafe_code)]

mod check;
mod engines;
mod headers;
mod json;
mod jws;
mod path;
mod short;
mod target;

pub use check::check;
pub use engines::engines;
pub use headers::headers;
pub use json::json;
pub use jws::jws;
pub use path::path;
pub use short::run;
pub use target::Target;

pub const TARGETS: [Target; 6] = [
    Target { name: "path", run: path::path, seeds: path::seeds, inputs: 200_000 },
    Target { name: "json", run: json::json, seeds: json::seeds, inputs: 50_000 },
    Target { name: "jws", run: jws::jws, seeds: jws::seeds, inputs: 30_000 },
    Target { name: "headers", run: headers::headers, seeds: headers::seeds, inputs: 30_000 },
    Target { name: "check", run: check::check, seeds: check::seeds, inputs: 10_000 },
    Target { name: "engines", run: engines::engines, seeds: engines::seeds, inputs: 300 },
];
