//! The measured figures of the plan: one table with the source of each. After a new measurement change it here, and
//! then docs/operations.md (`benches capacity` prints its part).

/// A measured figure, and its source.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub value: f64,
    pub unit: &'static str,
    pub what: &'static str,
    pub by: &'static str,
}

/// The upper ends of the measured ranges, on a machine with two slow, busy cores.
pub const SERVICE_PER_CHECK: Measured = Measured {
    value: 118.0,
    unit: "µs",
    what: "CPU of the service for a check of 6 keys (92 to 118 seen)",
    by: "tests/tests/e2e/cost.rs by hand: CPU time of the process at 2,000 checks a second",
};
pub const REDIS_PER_CHECK: Measured = Measured {
    value: 30.0,
    unit: "µs",
    what: "CPU of a single Redis for such a check (22 to 30 seen)",
    by: "the same",
};
/// Keys in the checks that the two figures above are for.
pub const KEYS_OF_MEASURED_CHECK: f64 = 6.0;
pub const REDIS_PER_REVOCATION: Measured = Measured {
    value: 410.0,
    unit: "B",
    what: "memory of Redis 7.0 for a revocation of a session under one secret, with a short reason (407 to 412 seen)",
    by: "`used_memory` by the number of revocations; a test of the service holds it within a fifth",
};
pub const ALL: [Measured; 3] = [SERVICE_PER_CHECK, REDIS_PER_CHECK, REDIS_PER_REVOCATION];

/// µs for one check of this many keys. Larger ones are assumed to cost in proportion. This overstates the part of a
/// check that does not depend on its keys: one of 64 took a saturated service 51 µs (`make bench-growth`).
pub fn micros_per_check(measured: Measured, keys: f64) -> f64 {
    measured.value * (keys / KEYS_OF_MEASURED_CHECK).max(1.0)
}
