//! Noise that can be had at any position: a counter, mixed.
//!
//! Source of the mixing function: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (splitmix64).

/// Step of the counter: the golden ratio in 64 bits, as in splitmix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Values that one element can take: as many as fit the first-level cache as a table of any element type.
pub(crate) const LEVELS: usize = 1 << 12;

/// Elements that one mixed word gives.
pub(crate) const PER_WORD: usize = 4;

/// The noise of one tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    key: u64,
}

impl Noise {
    pub(crate) fn new(seed: u64, name: &str) -> Noise {
        // FNV-1a, spread over all bits by the mixing.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Noise {
            key: mix(mix(seed.wrapping_add(STEP)) ^ hash),
        }
    }

    /// Levels of the elements from `PER_WORD * word` on.
    pub(crate) fn levels(self, word: u64) -> [usize; PER_WORD] {
        let bits = mix(self.key.wrapping_add(word.wrapping_mul(STEP)));
        // The upper bits of each quarter.
        [52, 36, 20, 4].map(|shift| (bits >> shift) as usize % LEVELS)
    }
}

/// A level as a number in (-1, 1), evenly spaced around 0.
pub(crate) fn centred(level: usize) -> f32 {
    (2 * level + 1) as f32 / LEVELS as f32 - 1.0
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of a uniform distribution, over a million values.
    #[test]
    fn levels_are_even() {
        let noise = Noise::new(1, "conv_in.weight");
        let count = 1 << 18;
        let (mut sum, mut squares, mut seen) = (0.0, 0.0, vec![false; LEVELS]);
        for level in (0..count).flat_map(|word| noise.levels(word)) {
            let x = f64::from(centred(level));
            sum += x;
            squares += x * x;
            seen[level] = true;
        }
        let n = (count * PER_WORD as u64) as f64;
        assert!((sum / n).abs() < 3e-3, "{}", sum / n);
        assert!((squares / n - 1.0 / 3.0).abs() < 3e-3, "{}", squares / n);
        assert!(seen.into_iter().all(|s| s));
    }

    #[test]
    fn seed_and_name_change_the_noise() {
        let first = |seed, name| Noise::new(seed, name).levels(0);
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }
}
