//! How far a tensor is from the one that it should be.

use mil_eval::Elements;

/// How far a tensor is from the one that it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Difference {
    /// Every element is equal.
    Identical,
    /// The peak signal to noise ratio in dB: `20 log10(max |reference| / rmse)`. Minus infinity where the reference is all zeros.
    Psnr(f64),
    /// Elements that are no numbers, or infinite where the reference is not.
    NotFinite,
}

impl Difference {
    /// Between two tensors of as many elements; `None` for others, or of another kind.
    pub(super) fn between(found: Elements<'_>, reference: Elements<'_>) -> Option<Self> {
        let sums = match (found, reference) {
            (Elements::F32(f), Elements::F32(r)) if f.len() == r.len() => Sums::of(f, r),
            (Elements::I32(f), Elements::I32(r)) if f.len() == r.len() => {
                Sums::of(&wide(f, |&n| n as f32), &wide(r, |&n| n as f32))
            }
            (Elements::Bool(f), Elements::Bool(r)) if f.len() == r.len() => {
                let number = |&b: &bool| f32::from(u8::from(b));
                Sums::of(&wide(f, number), &wide(r, number))
            }
            _ => return None,
        };
        Some(sums.difference())
    }

    /// Whether it is at least this near.
    pub fn holds(self, min_psnr: f64) -> bool {
        match self {
            Difference::Identical => true,
            Difference::Psnr(psnr) => psnr >= min_psnr,
            Difference::NotFinite => false,
        }
    }

    /// To order by: the farther, the smaller.
    pub(super) fn rank(self) -> f64 {
        match self {
            Difference::Identical => f64::INFINITY,
            Difference::Psnr(psnr) => psnr,
            Difference::NotFinite => f64::NEG_INFINITY,
        }
    }
}

fn wide<T>(values: &[T], number: impl Fn(&T) -> f32) -> Vec<f32> {
    values.iter().map(number).collect()
}

/// Elements that are added up side by side, so that a compiler can use whole vectors; the order is fixed.
const LANES: usize = 8;

struct Sums {
    count: usize,
    squares: f64,
    max_reference: f32,
    differing: usize,
}

impl Sums {
    fn of(found: &[f32], reference: &[f32]) -> Self {
        let mut squares = [0.0f64; LANES];
        let mut largest = [0.0f32; LANES];
        let mut differing = [0usize; LANES];
        for (f, r) in found.chunks(LANES).zip(reference.chunks(LANES)) {
            for (lane, (&f, &r)) in f.iter().zip(r).enumerate() {
                // Equal infinities have no distance.
                let error = if f == r {
                    0.0
                } else {
                    f64::from(f) - f64::from(r)
                };
                squares[lane] += error * error;
                differing[lane] += usize::from(f != r);
                let magnitude = if r.is_finite() { r.abs() } else { 0.0 };
                largest[lane] = largest[lane].max(magnitude);
            }
        }
        Sums {
            count: found.len(),
            squares: squares.iter().sum(),
            max_reference: largest.into_iter().fold(0.0, f32::max),
            differing: differing.iter().sum(),
        }
    }

    fn difference(&self) -> Difference {
        if self.differing == 0 {
            return Difference::Identical;
        }
        if !self.squares.is_finite() {
            return Difference::NotFinite;
        }
        let rmse = (self.squares / self.count as f64).sqrt();
        Difference::Psnr(20.0 * (f64::from(self.max_reference) / rmse).log10())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(found: &[f32], reference: &[f32]) -> Option<Difference> {
        Difference::between(Elements::F32(found), Elements::F32(reference))
    }

    #[test]
    fn the_ratio_is_that_of_the_peak_to_the_error() {
        let reference: Vec<f32> = (0..100).map(|i| (i as f32 - 50.0) / 5.0).collect();
        let found: Vec<f32> = reference.iter().map(|x| x + 0.01).collect();
        // 20 log10(10 / 0.01)
        let Some(Difference::Psnr(psnr)) = between(&found, &reference) else {
            panic!("a ratio");
        };
        assert!((psnr - 60.0).abs() < 0.01, "{psnr}");
        let one_off: Vec<f32> = [&reference[..99], &[reference[99] + 0.1]].concat();
        let Some(Difference::Psnr(psnr)) = between(&one_off, &reference) else {
            panic!("a ratio");
        };
        assert!((psnr - 60.0).abs() < 0.01, "{psnr}");
    }

    #[test]
    fn what_has_no_ratio_is_told_apart() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for (found, reference, expected) in [
            ([1.0, 2.0], [1.0, 2.0], Difference::Identical),
            ([0.0, -0.0], [0.0, 0.0], Difference::Identical),
            ([1.0, -inf], [1.0, -inf], Difference::Identical),
            ([1.0, inf], [1.0, 2.0], Difference::NotFinite),
            ([1.0, 2.0], [1.0, inf], Difference::NotFinite),
            ([nan, 2.0], [1.0, 2.0], Difference::NotFinite),
            ([nan, 2.0], [nan, 2.0], Difference::NotFinite),
            ([1.0, 0.0], [0.0, 0.0], Difference::Psnr(f64::NEG_INFINITY)),
        ] {
            let difference = between(&found, &reference);
            assert_eq!(difference, Some(expected), "{found:?} {reference:?}");
        }
        assert_eq!(between(&[1.0], &[1.0, 1.0]), None);
        let integers = Difference::between(Elements::I32(&[1]), Elements::F32(&[1.0]));
        assert_eq!(integers, None);
        assert!(!Difference::NotFinite.holds(0.0) && Difference::Identical.holds(1e9));
        assert!(Difference::Psnr(35.0).holds(35.0) && !Difference::Psnr(34.9).holds(35.0));
    }
}
