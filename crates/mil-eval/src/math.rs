//! Functions of one number, written so that loops over them become vector instructions.
//!
//! No fused multiply-add and no function of the platform's: the same bits on every machine. The functions that are needed
//! rarely are the standard library's.

use rten_simd::{Isa, SimdOp};

/// Runs loops with the widest vector instructions of this machine: everything in `f` is compiled for each.
#[inline]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    struct Loop<F>(F);
    impl<R, F: FnOnce() -> R> SimdOp for Loop<F> {
        type Output = R;

        #[inline(always)]
        fn eval<I: Isa>(self, _: I) -> R {
            (self.0)()
        }
    }
    Loop(f).dispatch()
}

/// `e^x`, within 1.5 units in the last place.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2, its first bits and the rest.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these the result is infinite or 0; comparisons let a NaN pass.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // Taylor's series; |r| is at most ln 2 / 2.
    let mut p = 1.984_127e-4;
    p = p * r + 1.388_888_9e-3;
    p = p * r + 8.333_333e-3;
    p = p * r + 4.166_666_8e-2;
    p = p * r + 1.666_666_7e-1;
    p = p * r + 0.5;
    let p = (p * r * r + r) + 1.0;
    // In two steps, as 2^n may lie outside the range of normal numbers.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let t = x.abs();
    // From the exponential where that does not cancel, else the beginning of a series in x^2 (fitted to 1e-8).
    let large = 1.0 - 2.0 / (exp(2.0 * t) + 1.0);
    let s = x * x;
    let mut p = TANH[5];
    p = p * s + TANH[4];
    p = p * s + TANH[3];
    p = p * s + TANH[2];
    p = p * s + TANH[1];
    p = p * s + TANH[0];
    let small = x + x * s * p;
    if t < 0.625 { small } else { large.copysign(x) }
}

/// `(tanh(x) / x - 1) / x^2` in powers of `x^2`, for `x` up to 0.625.
const TANH: [f32; 6] = [
    -0.33333334,
    0.13333301,
    -0.053958625,
    0.021763632,
    -0.008326399,
    0.0022727023,
];

/// Error function.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let t = x.abs();
    let large = (1.0 - erfc_large(t)).copysign(x);
    if t < 1.0 { erf_small(x) } else { large }
}

/// `x` times the probability that a standard normal number is less than it.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let z = x * std::f32::consts::FRAC_1_SQRT_2;
    let t = z.abs();
    let tail = erfc_large(t);
    let small = 1.0 + erf_small(z);
    let large = if z < 0.0 { tail } else { 2.0 - tail };
    0.5 * x * if t < 1.0 { small } else { large }
}

/// The error function up to 1 (fitted to 1.4e-9).
#[inline(always)]
fn erf_small(x: f32) -> f32 {
    let s = x * x;
    let mut p = ERF[6];
    p = p * s + ERF[5];
    p = p * s + ERF[4];
    p = p * s + ERF[3];
    p = p * s + ERF[2];
    p = p * s + ERF[1];
    // The leading factor is 1 and a rest, which loses less.
    p = p * s + ERF[0];
    x + x * p
}

/// `erf(x) / x` in powers of `x^2`, 1 taken off the first.
const ERF: [f32; 7] = [
    0.128_379_17,
    -0.376_126_26,
    0.112_835_97,
    -0.026_854_329,
    5.189_312e-3,
    -8.018_855e-4,
    7.882_497e-5,
];

/// What the error function lacks to 1, from 1 on: `e^(-t^2)` times a polynomial in `u = 1 / (1 + t / 4)` without a constant
/// (fitted to 2.8e-9).
#[inline(always)]
fn erfc_large(t: f32) -> f32 {
    let u = 1.0 / (1.0 + 0.25 * t);
    let mut p = ERFC[8];
    p = p * u + ERFC[7];
    p = p * u + ERFC[6];
    p = p * u + ERFC[5];
    p = p * u + ERFC[4];
    p = p * u + ERFC[3];
    p = p * u + ERFC[2];
    p = p * u + ERFC[1];
    p = p * u + ERFC[0];
    exp(-t * t) * (p * u)
}

const ERFC: [f32; 9] = [
    0.14109927,
    0.13988802,
    0.14794281,
    0.064733714,
    0.33703688,
    -0.41061133,
    0.839113,
    -0.62816936,
    0.36901098,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance from the exact value in units in the last place of the exact value rounded.
    fn ulps(found: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if found == rounded {
            return 0.0;
        }
        let unit = f64::from(rounded.abs().next_up()) - f64::from(rounded.abs());
        (f64::from(found) - exact).abs() / unit
    }

    fn check(
        name: &str,
        f: fn(f32) -> f32,
        exact: fn(f64) -> f64,
        (low, high): (f32, f32),
        most: f64,
    ) {
        const STEPS: u32 = 200_000;
        let mut worst = (0.0, 0.0);
        for i in 0..=STEPS {
            let x = low + (high - low) * (i as f32 / STEPS as f32);
            let distance = ulps(f(x), exact(f64::from(x)));
            if distance > worst.0 {
                worst = (distance, x);
            }
        }
        assert!(worst.0 <= most, "{name}: {worst:?}");
    }

    #[test]
    fn functions_are_within_a_few_units() {
        check("exp", exp, f64::exp, (-87.3, 88.7), 1.5);
        check("exp near 0", exp, f64::exp, (-1.0, 1.0), 1.5);
        check(
            "sigmoid",
            sigmoid,
            |x| 1.0 / (1.0 + (-x).exp()),
            (-80.0, 80.0),
            3.0,
        );
        check("silu", silu, |x| x / (1.0 + (-x).exp()), (-80.0, 80.0), 3.5);
        check("tanh", tanh, f64::tanh, (-10.0, 10.0), 3.0);
        check("tanh near 0", tanh, f64::tanh, (-0.7, 0.7), 3.0);
        check("erf", erf, libm::erf, (-5.0, 5.0), 2.5);
        check("erf near 0", erf, libm::erf, (-1.1, 1.1), 2.5);
        let exact = |x: f64| 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        check("gelu", gelu, exact, (-1.4, 8.0), 8.0);
        // Where it is small, the rounding of x^2 weighs more.
        check("gelu far below 0", gelu, exact, (-8.0, -1.4), 80.0);
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(ulps(exp(-100.0), (-100f64).exp()) <= 1.0);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        assert!(gelu(f32::NAN).is_nan());
        assert_eq!((tanh(100.0), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((erf(100.0), erf(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((gelu(100.0), gelu(-100.0)), (100.0, 0.0));
        assert_eq!((sigmoid(-200.0), silu(200.0)), (0.0, 200.0));
    }
}
