//! From numbers to places in a drawing, in percent of its width or height.

use std::fmt;

/// A place or length in percent, from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// Within 0 and 100; 0 for what is no number.
    pub fn new(value: f64) -> Percent {
        if value.is_nan() {
            return Percent(0.0);
        }
        Percent(value.clamp(0.0, 100.0))
    }

    /// What is left to 100.
    pub fn rest(self) -> Percent {
        Percent(100.0 - self.0)
    }

    /// How much farther `to` is; 0 if it is not.
    pub fn to(self, to: Percent) -> Percent {
        Percent::new(to.0 - self.0)
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// With three digits behind the point: a thousandth of a percent is below what a screen shows.
impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.3}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A linear scale from 0 to a largest number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    max: f64,
}

impl Scale {
    /// Up to `max`; up to 1 where that is none or not above 0, so that nothing is divided by it.
    pub fn to(max: f64) -> Scale {
        let max = if max.is_finite() && max > 0.0 {
            max
        } else {
            1.0
        };
        Scale { max }
    }

    /// The place of a number.
    pub fn at(self, value: f64) -> Percent {
        Percent::new(value / self.max * 100.0)
    }

    /// The place of a number of bytes.
    pub fn at_bytes(self, bytes: u64) -> Percent {
        self.at(bytes as f64)
    }

    /// Round numbers from 0 up to the largest, with steps of 1, 2 or 5 times a power of ten: at most `most` steps.
    pub fn ticks(self, most: u32) -> Vec<f64> {
        let least_step = self.max / f64::from(most.max(1));
        let power = 10f64.powf(least_step.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        // A tick that is meant to be the largest number may be a little over it.
        let is_enough = |step: &f64| *step >= least_step * (1.0 - 1e-9);
        let step = steps.into_iter().find(is_enough).unwrap_or(self.max);
        let count = (self.max / step * (1.0 + 1e-9))
            .floor()
            .min(f64::from(most)) as u32;
        (0..=count).map(|n| f64::from(n) * step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_within_the_drawing_whatever_the_numbers() {
        for max in [
            f64::NAN,
            f64::INFINITY,
            -1.0,
            0.0,
            f64::MIN_POSITIVE,
            1.0,
            f64::MAX,
        ] {
            for value in [f64::NAN, f64::NEG_INFINITY, -5.0, 0.0, 0.5, f64::MAX] {
                let at = Scale::to(max).at(value).get();
                assert!((0.0..=100.0).contains(&at), "{value} of {max}: {at}");
            }
            assert!(Scale::to(max).ticks(5).len() <= 6, "{max}");
        }
    }

    #[test]
    fn a_scale_is_linear() {
        let scale = Scale::to(2000.0);
        assert_eq!(scale.at_bytes(0).to_string(), "0");
        assert_eq!(scale.at_bytes(500).to_string(), "25");
        assert_eq!(scale.at(1.0).to_string(), "0.05");
        assert_eq!(scale.at_bytes(2000), Percent::new(100.0));
        assert_eq!(scale.at_bytes(500).rest().to_string(), "75");
        assert_eq!(scale.at(500.0).to(scale.at(1500.0)).to_string(), "50");
        assert_eq!(scale.at(500.0).to(scale.at(100.0)).to_string(), "0");
        assert_eq!(Percent::new(100.0 / 3.0).to_string(), "33.333");
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (max, most, expected) in [
            (10.0, 5, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (23.0, 5, vec![0.0, 5.0, 10.0, 15.0, 20.0]),
            (0.7, 4, vec![0.0, 0.2, 0.4, 0.6]),
            (1e9, 2, vec![0.0, 5e8, 1e9]),
            (99.0, 1, vec![0.0]),
        ] {
            let ticks = Scale::to(max).ticks(most);
            let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9 * max;
            assert_eq!(ticks.len(), expected.len(), "{max}: {ticks:?}");
            assert!(ticks.iter().zip(&expected).all(is_near), "{max}: {ticks:?}");
        }
    }
}
