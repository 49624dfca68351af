//! Numbers as people read them, and tables.

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Bytes in decimal units, as disks and Apple's tools count: `1.71 GB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// How much of `limit` is used, as `80 %`.
pub fn share(n: u64, limit: u64) -> String {
    let percent = n as f64 * 100.0 / limit.max(1) as f64;
    if n > limit && percent < 100.5 {
        "over 100 %".to_owned()
    } else {
        format!("{percent:.0} %")
    }
}

/// Seconds as `2.3 s`.
pub fn seconds(s: f64) -> String {
    if s < 10.0 {
        format!("{s:.2} s")
    } else {
        format!("{s:.0} s")
    }
}

/// A table with a header row; columns after the first are aligned right.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Lines without trailing space.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows
                .iter()
                .filter_map(|r| r.get(c))
                .map(|s| s.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(c, (text, &w))| match c {
                    0 => format!("{text:<w$}"),
                    _ => format!("{text:>w$}"),
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(2_567_463_684), "2,567,463,684");
        for (n, text) in [
            (999, "999 B"),
            (1000, "1.00 kB"),
            (999_700, "1.00 MB"),
            (12_340_000, "12.3 MB"),
            (2_147_483_648, "2.15 GB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn a_share_over_the_limit_never_reads_as_fitting() {
        assert_eq!(share(100, 100), "100 %");
        assert_eq!(share(1001, 1000), "over 100 %");
        assert_eq!(share(3, 2), "150 %");
    }
}
