//! Medians: one disturbed round has no effect.
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quartiles {
    pub first: f64,
    pub median: f64,
    pub third: f64,
}

impl Quartiles {
    /// For a single measurement.
    pub fn same(value: f64) -> Self {
        Self { first: value, median: value, third: value }
    }

    /// By linear interpolation between the two nearest values; NaN for no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
            let place = last as f64 * share;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self { first: at(0.25), median: at(0.5), third: at(0.75) }
    }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Quartiles::of(values).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        let quartiles = Quartiles::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(quartiles, Quartiles { first: 1.75, median: 2.5, third: 3.25 });
        assert_eq!(median([7.0]), 7.0);
        assert!(median([]).is_nan());
    }
}
