//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Bytes in decimal units, as disks and Apple's tools count: `1.71 GB`.
pub fn bytes(n: u64) -> String {
    match scaled(n as f64, &[" kB", " MB", " GB", " TB", " PB", " EB"]) {
        Some(text) => text,
        None => format!("{n} B"),
    }
}

/// A large number in words: `2.57 billion`.
pub fn words(n: u64) -> String {
    const UNITS: [&str; 6] = [
        " thousand",
        " million",
        " billion",
        " trillion",
        " quadrillion",
        " quintillion",
    ];
    scaled(n as f64, &UNITS).unwrap_or_else(|| n.to_string())
}

/// In the unit of a factor of 1,000 that gives three digits; `None` below the first.
fn scaled(n: f64, units: &[&str]) -> Option<String> {
    if n < 1000.0 {
        return None;
    }
    let mut value = n;
    let mut unit = "";
    for next in units {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    Some(format!("{value:.digits$}{unit}"))
}

/// `0.41 s`, `24 s`, `3 min 05 s`.
pub fn seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() || s < 0.0 => "unknown".to_owned(),
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 99.95 => format!("{s:.1} s"),
        s => {
            let whole = s.round() as u64;
            format!("{} min {:02} s", whole / 60, whole % 60)
        }
    }
}

/// How much of `limit` is used, as `80 %`; what is over it never reads as 100 %.
pub fn share(n: u64, limit: u64) -> String {
    let percent = n as f64 * 100.0 / limit.max(1) as f64;
    match percent {
        p if n > limit && p < 100.5 => "over 100 %".to_owned(),
        p if n > 0 && p < 0.5 => "< 1 %".to_owned(),
        p => format!("{p:.0} %"),
    }
}

/// `1 package`, `3 packages`.
pub fn count(n: usize, what: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {what}{ending}", thousands(n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(123_456), "123,456");
        assert_eq!(thousands(2_567_463_684), "2,567,463,684");
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_996, "10.0 kB"),
            (999_700, "1.00 MB"),
            (12_340_000, "12.3 MB"),
            (2_147_483_648, "2.15 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(words(2_567_463_684), "2.57 billion");
        assert_eq!(words(640), "640");
    }

    #[test]
    fn seconds_that_are_none_are_said_so() {
        for (s, text) in [
            (0.0, "0.00 s"),
            (9.999, "10.0 s"),
            (24.04, "24.0 s"),
            (185.2, "3 min 05 s"),
            (119.7, "2 min 00 s"),
            (-1.0, "unknown"),
            (f64::NAN, "unknown"),
            (f64::INFINITY, "unknown"),
        ] {
            assert_eq!(seconds(s), text);
        }
    }

    #[test]
    fn a_share_over_the_limit_never_reads_as_fitting() {
        assert_eq!(share(100, 100), "100 %");
        assert_eq!(share(1001, 1000), "over 100 %");
        assert_eq!(share(3, 2), "150 %");
        assert_eq!(share(1, 1000), "< 1 %");
        assert_eq!(share(0, 0), "0 %");
    }
}
