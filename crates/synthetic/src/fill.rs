//! The bytes of a range of a tensor's elements.

use checkpoint::Dtype;

use crate::element;
use crate::noise::{self, LEVELS, Noise, PER_WORD};

/// What a tensor's elements are drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    /// Their noise.
    pub noise: Noise,
    /// Their middle.
    pub mean: f32,
    /// How far from it they go either way.
    pub reach: f32,
}

impl Values {
    /// Fills `out` with the elements from number `PER_WORD * word` on.
    pub(crate) fn fill(&self, dtype: Dtype, word: u64, out: &mut [u8]) {
        match dtype {
            Dtype::F32 => self.fill_with(word, out, element::four),
            Dtype::F16 | Dtype::Bf16 => self.fill_with(word, out, |x| element::two(dtype, x)),
            _ => self.fill_with(word, out, |x| element::one(dtype, x)),
        }
    }

    fn fill_with<const N: usize>(
        &self,
        word: u64,
        out: &mut [u8],
        encode: impl Fn(f32) -> [u8; N],
    ) {
        let element = |level| encode(self.mean + self.reach * noise::centred(level));
        let elements = out.as_chunks_mut::<N>().0;
        if elements.len() < LEVELS {
            return draw(self.noise, word, elements, element);
        }
        let mut table = [[0; N]; LEVELS];
        for (level, entry) in table.iter_mut().enumerate() {
            *entry = element(level);
        }
        // The remainder spares the check, as the table's length is known.
        draw(self.noise, word, elements, |level| table[level % LEVELS]);
    }
}

fn draw<const N: usize>(
    noise: Noise,
    word: u64,
    elements: &mut [[u8; N]],
    element: impl Fn(usize) -> [u8; N],
) {
    for (elements, word) in elements.chunks_mut(PER_WORD).zip(word..) {
        for (e, level) in elements.iter_mut().zip(noise.levels(word)) {
            *e = element(level);
        }
    }
}
