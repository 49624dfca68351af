//! Paths of an SVG that is 100 wide and 100 high, with its origin at the top left.

use std::fmt::Write;

use crate::scale::Percent;

/// A point: from the left and from the bottom.
pub type Point = (Percent, Percent);

/// Most points of a line: more than a screen has across.
const MAX_POINTS: usize = 600;

/// A line through the points; of more than a screen shows, the highest of each few.
pub fn line(points: &[Point]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in thinned(points).into_iter().enumerate() {
        let command = if at == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x} {}", y.rest());
    }
    path
}

/// The area between the line and the bottom; nothing where there is no line.
pub fn area(points: &[Point]) -> String {
    match (points.first(), points.last()) {
        (Some((first, _)), Some((last, _))) => {
            format!("{}L{last} 100L{first} 100Z", line(points))
        }
        _ => String::new(),
    }
}

fn thinned(points: &[Point]) -> Vec<Point> {
    let few = points.len().div_ceil(MAX_POINTS).max(1);
    let highest = |some: &[Point]| {
        some.iter()
            .copied()
            .reduce(|a, b| if b.1 > a.1 { b } else { a })
    };
    points.chunks(few).filter_map(highest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        (Percent::new(x), Percent::new(y))
    }

    #[test]
    fn a_path_starts_at_the_top_left() {
        let points = [point(0.0, 10.0), point(50.0, 100.0), point(100.0, 2.5)];
        assert_eq!(line(&points), "M0 90L50 0L100 97.5");
        assert_eq!(area(&points), "M0 90L50 0L100 97.5L100 100L0 100Z");
        assert_eq!(line(&points[..1]), "M0 90");
        assert_eq!(line(&[]), "");
        assert_eq!(area(&[]), "");
    }

    #[test]
    fn many_points_are_thinned_and_the_highest_stays() {
        let points: Vec<_> = (0..10_000)
            .map(|n| point(f64::from(n) / 100.0, if n == 7_777 { 99.0 } else { 1.0 }))
            .collect();
        let path = line(&points);
        assert!(path.matches('L').count() < MAX_POINTS);
        assert!(path.contains("L77.77 1L"), "{path:.200}");
    }
}
