//! What the plan takes from measurements: one table, which names where each figure comes from. Who measures anew changes
//! it here, and then docs/operations.md (`benches capacity` prints its part).

/// A figure that was measured, and where.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub value: f64,
    pub unit: &'static str,
    pub what: &'static str,
    pub by: &'static str,
}

/// Of the ranges that were seen the dearer end: on a machine of two slow, busy cores.
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
/// Keys in the checks of which the two above speak.
pub const KEYS_OF_MEASURED_CHECK: f64 = 6.0;
pub const REDIS_PER_REVOCATION: Measured = Measured {
    value: 410.0,
    unit: "B",
    what: "memory of Redis 7.0 for a revocation of a session under one secret, with a short reason (407 to 412 seen)",
    by: "`used_memory` by the number of revocations; a test of the service holds it within a fifth",
};
pub const ALL: [Measured; 3] = [SERVICE_PER_CHECK, REDIS_PER_CHECK, REDIS_PER_REVOCATION];

/// µs for one check of so many keys. Larger ones are taken to cost in proportion, which overstates what of a check does not
/// depend on its keys: one of 64 took a saturated service 51 µs (`make bench-growth`).
pub fn micros_per_check(measured: Measured, keys: f64) -> f64 {
    measured.value * (keys / KEYS_OF_MEASURED_CHECK).max(1.0)
}
