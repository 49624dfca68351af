//! Sizes on the command line: of files (`2GiB`), of images (`1024x1024`), shares (`5%`).

use std::time::Duration;

/// Units of file sizes, decimal and binary.
const UNITS: &[(&str, u64)] = &[
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
];

/// `2GiB`, `1.5GB`, `250000000`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" => 1,
        unit => {
            let known = UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known
                .ok_or("expected bytes, or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB")?
                .1
        }
    };
    let number = number.trim();
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => fraction(number, factor),
    };
    bytes
        .filter(|&n| n > 0)
        .ok_or_else(|| "expected a size above 0, such as 2GiB, 1.5GB or 2147483648".to_owned())
}

/// A decimal fraction of a unit, rounded down; exact, so that a limit means what it says.
fn fraction(number: &str, factor: u64) -> Option<u64> {
    const MAX_DIGITS: usize = 12;
    let (whole, part) = number.split_once('.')?;
    if part.is_empty() || part.len() > MAX_DIGITS || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10u128.pow(part.len() as u32);
    let digits =
        u128::from(whole.parse::<u64>().ok()?).checked_mul(scale)? + part.parse::<u128>().ok()?;
    u64::try_from(digits.checked_mul(u128::from(factor))? / scale).ok()
}

/// `1s`, `250ms`, `2m`; a tenth of a second at least, an hour at most.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let of_unit = |(unit, factor): &(&str, u64)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor)
    };
    UNITS
        .iter()
        .find_map(of_unit)
        .filter(|milliseconds| (100..=3_600_000).contains(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time from 100ms to 60m, such as 1s".to_owned())
}

/// `WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub width: u64,
    pub height: u64,
}

/// Pixels of the image for each position of the latent, each way.
pub const PIXELS: u64 = 8;
/// Longest side of a latent: an image of 8,192 pixels, far beyond any model.
const MAX_LATENT: u64 = 1024;

/// `128x128`: width, then height.
pub fn parse_latent(text: &str) -> Result<Extent, String> {
    parse_extent(text, MAX_LATENT)
}

/// An image size, `1024x1024`, as its latent.
pub fn parse_image(text: &str) -> Result<Extent, String> {
    let image = parse_extent(text, MAX_LATENT * PIXELS)?;
    if !image.width.is_multiple_of(PIXELS) || !image.height.is_multiple_of(PIXELS) {
        return Err(format!(
            "expected multiples of {PIXELS}, which the VAE needs"
        ));
    }
    Ok(Extent {
        width: image.width / PIXELS,
        height: image.height / PIXELS,
    })
}

fn parse_extent(text: &str, max_side: u64) -> Result<Extent, String> {
    let side = |s: &str| s.parse().ok().filter(|n| (1..=max_side).contains(n));
    let sides = text.split_once(['x', 'X']);
    let sides = sides.and_then(|(w, h)| Some((side(w)?, side(h)?)));
    let (width, height) =
        sides.ok_or_else(|| format!("expected WIDTHxHEIGHT with sides from 1 to {max_side}"))?;
    Ok(Extent { width, height })
}

/// `5%`, as a fraction.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text
        .strip_suffix('%')
        .and_then(|n| n.trim().parse::<f64>().ok());
    let percent = percent.filter(|p| (0.0..=100.0).contains(p));
    percent
        .map(|p| p / 100.0)
        .ok_or_else(|| "expected a percentage from 0% to 100%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_a_unit_and_bounds() {
        for (text, milliseconds) in [("1s", 1000), ("250ms", 250), ("60m", 3_600_000)] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse_interval(text), Ok(expected));
        }
        for text in [
            "",
            "1",
            "s",
            "99ms",
            "61m",
            "-1s",
            "1.5s",
            "99999999999999999999s",
        ] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn byte_sizes() {
        for (text, expected) in [
            ("2GiB", Some(2_147_483_648)),
            ("1.5GB", Some(1_500_000_000)),
            ("0.25gb", Some(250_000_000)),
            ("2147483648", Some(2_147_483_648)),
            ("1 MB", Some(1_000_000)),
            ("10B", Some(10)),
            ("0", None),
            ("-1", None),
            ("1.GB", None),
            ("2G", None),
            ("", None),
            ("99999999999TB", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn extents() {
        assert_eq!(
            parse_latent("96x64"),
            Ok(Extent {
                width: 96,
                height: 64
            })
        );
        assert_eq!(
            parse_image("1024x768"),
            Ok(Extent {
                width: 128,
                height: 96
            })
        );
        for text in [
            "",
            "64",
            "0x64",
            "64x",
            "axb",
            "64x64x64",
            "99999999x1",
            "1025x8",
        ] {
            assert!(parse_latent(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_latent("1024x1"),
            Ok(Extent {
                width: 1024,
                height: 1
            })
        );
        for text in ["1000x1001", "8200x8"] {
            assert!(parse_image(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!(parse_percent("5%"), Ok(0.05));
        for text in ["5", "-1%", "101%", "NaN%", "%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
